-- People. One person has one identity per platform.
CREATE TABLE persons (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL DEFAULT 'member',          -- member | operator | blocked
    language TEXT,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL
);

CREATE TABLE identities (
    platform TEXT NOT NULL,
    platform_user_id TEXT NOT NULL,
    person_id TEXT NOT NULL REFERENCES persons (id) ON DELETE CASCADE,
    username TEXT,
    display_name TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    told_declined_at BIGINT,                      -- a stranger is told once, then there is silence
    PRIMARY KEY (platform, platform_user_id)
);
CREATE INDEX identities_person ON identities (person_id);

-- Channels the bot has met, with how far each feed was read (platforms that have no acknowledgement of their own).
CREATE TABLE channels (
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    kind TEXT NOT NULL,                           -- direct | group
    title TEXT,
    watermark TEXT,
    last_heard_at BIGINT NOT NULL,
    PRIMARY KEY (account, channel)
);

CREATE TABLE cursors (
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account, name)
);

-- Sessions. `key` is built in sessions/keys.py; at most one live session per key.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    scope TEXT NOT NULL,                          -- person | person_everywhere | channel | member
    platform TEXT NOT NULL,
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    thread TEXT,
    person_id TEXT,                               -- NULL when the whole channel shares the session
    persona TEXT,
    status TEXT NOT NULL,                         -- active | paused | ended | archived
    end_reason TEXT,                              -- reset | completed | abandoned | expired | deleted
    title TEXT,
    description TEXT,
    current_task TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    next_position BIGINT NOT NULL DEFAULT 1,
    message_count BIGINT NOT NULL DEFAULT 0,
    tool_call_count BIGINT NOT NULL DEFAULT 0,
    error_count BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    last_activity_at BIGINT NOT NULL,
    paused_at BIGINT,
    ended_at BIGINT,
    archived_at BIGINT
);
CREATE UNIQUE INDEX sessions_live ON sessions (key) WHERE status IN ('active', 'paused');
CREATE INDEX sessions_key ON sessions (key, created_at);
CREATE INDEX sessions_person ON sessions (person_id, last_activity_at);
CREATE INDEX sessions_channel ON sessions (account, channel, last_activity_at);
CREATE INDEX sessions_cleanup ON sessions (status, last_activity_at);

CREATE TABLE session_variables (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,                          -- JSON
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (session_id, name)
);

-- Every message that arrived and was understood, once. The unique key refuses duplicates.
CREATE TABLE inbox (
    id $SERIAL,
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    message_id TEXT NOT NULL,
    channel_kind TEXT NOT NULL,
    thread TEXT,
    person_id TEXT,
    reply_handle TEXT,                            -- JSON, the adapter's own
    sent_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    outcome TEXT NOT NULL,                        -- accepted | command | declined
    reason TEXT NOT NULL,
    session_id TEXT,
    turn_id TEXT,
    UNIQUE (account, channel, message_id)
);
CREATE INDEX inbox_session ON inbox (session_id);
CREATE INDEX inbox_received ON inbox (outcome, received_at);

-- The work for one accepted message. A session's lane is its unfinished turns in order of position.
CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    inbox_id BIGINT NOT NULL,
    status TEXT NOT NULL,                         -- queued | running | completed | failed | timeout | cancelled
    epoch BIGINT NOT NULL DEFAULT 0,              -- grows with each claim; a result must carry the current one
    attempts INTEGER NOT NULL DEFAULT 0,
    queued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    cancel_requested_at BIGINT,
    noticed_at BIGINT,                            -- when the person was told about the wait
    agent TEXT,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    tool_calls INTEGER NOT NULL DEFAULT 0,
    error_ref TEXT,
    UNIQUE (session_id, position)
);
CREATE INDEX turns_unfinished ON turns (session_id, position) WHERE status IN ('queued', 'running');
CREATE UNIQUE INDEX turns_running ON turns (session_id) WHERE status = 'running'; -- one at a time, whatever the code does

CREATE TABLE messages (
    id $SERIAL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,                     -- of its turn; order in the conversation is (position, part)
    part INTEGER NOT NULL,                        -- 0 what the person said, 1 the answer
    role TEXT NOT NULL,                           -- user | assistant | system
    content TEXT NOT NULL,
    person_id TEXT,
    author TEXT,                                  -- display name, for sessions shared by several people
    turn_id TEXT,
    platform_message_id TEXT,
    attachments TEXT NOT NULL DEFAULT '[]',
    metadata TEXT NOT NULL DEFAULT '{}',
    created_at BIGINT NOT NULL,
    UNIQUE (session_id, position, part)
);

CREATE TABLE steps (
    turn_id TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,                           -- answer | tool_result
    payload TEXT NOT NULL,                        -- JSON
    created_at BIGINT NOT NULL,
    PRIMARY KEY (turn_id, number)
);

CREATE TABLE tool_calls (
    id $SERIAL,
    turn_id TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    session_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,                      -- JSON
    result TEXT NOT NULL,
    outcome TEXT NOT NULL,                        -- ok | error
    cause TEXT,                                   -- for the operator
    started_at BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL
);
CREATE INDEX tool_calls_turn ON tool_calls (turn_id);
CREATE INDEX tool_calls_session ON tool_calls (session_id);

CREATE TABLE errors (
    id $SERIAL,
    ref TEXT NOT NULL,                            -- what the person is told; short, so that two may be the same
    turn_id TEXT,
    session_id TEXT,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    cause TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX errors_ref ON errors (ref);
CREATE INDEX errors_session ON errors (session_id);
CREATE INDEX errors_turn ON errors (turn_id);

-- Derived, versioned, rebuildable; the messages they cover stay as they are.
CREATE TABLE summaries (
    id $SERIAL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    from_position BIGINT NOT NULL,
    to_position BIGINT NOT NULL,
    content TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    made_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (session_id, version)
);

-- Replies waiting to be sent, one row per chunk; a channel's rows go out in order of id.
CREATE TABLE outbox (
    id $SERIAL,
    key TEXT NOT NULL UNIQUE,                     -- the idempotency key given to the platform
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    channel_kind TEXT NOT NULL,
    thread TEXT,
    reply_to TEXT,
    reply_handle TEXT,
    inbox_id BIGINT,
    turn_id TEXT,
    session_id TEXT,
    kind TEXT NOT NULL,                           -- answer | command | notice | error
    part INTEGER NOT NULL,
    body TEXT NOT NULL,                           -- JSON of the chunk
    is_final INTEGER NOT NULL DEFAULT 1,          -- 0 while it is the preview of an answer still being written
    state TEXT NOT NULL,                          -- ready | sending | uncertain | sent | skipped | failed
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before BIGINT NOT NULL DEFAULT 0,
    waited_ms BIGINT NOT NULL DEFAULT 0,
    platform_message_id TEXT,
    may_be_out INTEGER NOT NULL DEFAULT 0,        -- 1 once the outcome of a send was not heard
    repeats INTEGER NOT NULL DEFAULT 0,           -- sends after an uncertain one
    error TEXT,
    created_at BIGINT NOT NULL,
    sent_at BIGINT
);
CREATE INDEX outbox_waiting ON outbox (account, channel, id) WHERE state IN ('ready', 'sending', 'uncertain');
CREATE INDEX outbox_sent ON outbox (account, sent_at) WHERE state = 'sent';
CREATE INDEX outbox_passing ON outbox (created_at) WHERE kind IN ('command', 'notice');
CREATE INDEX outbox_turn ON outbox (turn_id);
CREATE INDEX outbox_inbox ON outbox (inbox_id);
CREATE INDEX outbox_session ON outbox (session_id);

-- How long the platform told us to keep quiet; channel '' is the whole account.
CREATE TABLE holds (
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (account, channel)
);

-- Updates nobody could parse.
CREATE TABLE quarantine (
    id $SERIAL,
    account TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    raw $BYTES NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX quarantine_received ON quarantine (received_at);
