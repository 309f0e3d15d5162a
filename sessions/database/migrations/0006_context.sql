-- How much of a session its model sees, and what was learned about that.
ALTER TABLE sessions ADD COLUMN context_tokens INTEGER;              -- its own limit; NULL: the channel's, the account's or the general one
ALTER TABLE sessions ADD COLUMN learned_tokens INTEGER;              -- what went through after a provider had refused more
ALTER TABLE sessions ADD COLUMN learned_for TEXT;                    -- the agent that this was learned with
ALTER TABLE sessions ADD COLUMN token_ratio INTEGER NOT NULL DEFAULT 1000; -- tokens the provider reports for 1000 that we count
ALTER TABLE sessions ADD COLUMN summarised_to BIGINT NOT NULL DEFAULT 0;   -- last position that the summaries cover; 0: there are none
ALTER TABLE sessions ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;  -- grows when messages change or go; being added to is no change

-- A summary is never changed. It is current until a later version takes its place.
ALTER TABLE summaries ADD COLUMN level INTEGER NOT NULL DEFAULT 1;   -- 1 made of messages, above made of summaries
ALTER TABLE summaries ADD COLUMN replaced_by INTEGER;                -- the version that stands for it now
ALTER TABLE summaries ADD COLUMN input_tokens BIGINT NOT NULL DEFAULT 0;   -- what making it cost
ALTER TABLE summaries ADD COLUMN output_tokens BIGINT NOT NULL DEFAULT 0;
CREATE INDEX summaries_current ON summaries (session_id, from_position) WHERE replaced_by IS NULL;
