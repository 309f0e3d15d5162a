-- Every change of a session's status: when, from what to what, why, and who did it.
CREATE TABLE session_events (
    id $SERIAL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    happened_at BIGINT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    reason TEXT,                                  -- an end reason, or: resumed | switched | forked | moved | requested | overdue
    made_by TEXT NOT NULL,                        -- person | operator | clean-up | daemon
    person_id TEXT                                -- who asked for it, if it was a person
);
CREATE INDEX session_events_session ON session_events (session_id, id);
CREATE INDEX session_events_person ON session_events (person_id) WHERE person_id IS NOT NULL;

-- Notebooks and integrations that a session works with; each name once.
CREATE TABLE session_links (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                           -- notebook | integration
    name TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, kind, name)
);

-- What a session worked on; the one without an end is sessions.current_task.
CREATE TABLE session_tasks (
    id $SERIAL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    task TEXT NOT NULL,
    set_at BIGINT NOT NULL,
    ended_at BIGINT,
    outcome TEXT                                  -- done | dropped | replaced | abandoned
);
CREATE UNIQUE INDEX session_tasks_current ON session_tasks (session_id) WHERE ended_at IS NULL;
CREATE INDEX session_tasks_session ON session_tasks (session_id, id);
INSERT INTO session_tasks (session_id, task, set_at)
SELECT id, current_task, last_activity_at FROM sessions WHERE current_task IS NOT NULL;

-- Where a fork came from. No reference: the original may be removed before its fork.
ALTER TABLE sessions ADD COLUMN forked_from TEXT;

-- What the clean-up looks for.
CREATE INDEX sessions_ended ON sessions (status, ended_at);

-- A question that waits for `yes` before something is done that cannot be undone; one for each person and channel.
CREATE TABLE questions (
    person_id TEXT NOT NULL REFERENCES persons (id) ON DELETE CASCADE,
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    subject TEXT NOT NULL,                        -- session | me
    session_id TEXT,
    asked_at BIGINT NOT NULL,
    PRIMARY KEY (person_id, account, channel)
);
