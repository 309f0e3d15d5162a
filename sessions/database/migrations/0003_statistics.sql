-- What is known of all sessions, of each platform, persona and person, without looking at their rows.
-- Only the background work writes here; a fact is first a row of statistics_changes, added in the fact's own transaction by the triggers
-- below, and every read counts both. A session that was deleted no longer counts, whether its rows are still there or not.
-- dimension: all | platform | persona | person; subject: its name, '' for all and for sessions without a persona.
CREATE TABLE statistics_totals (
    dimension TEXT NOT NULL,
    subject TEXT NOT NULL,
    messages BIGINT NOT NULL,
    tool_calls BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,                  -- sum over sessions of the time between first and last activity
    PRIMARY KEY (dimension, subject)
);

-- fact: sessions by status | turns that ended, by status and response time | errors by kind.
CREATE TABLE statistics_counts (
    dimension TEXT NOT NULL,
    subject TEXT NOT NULL,
    fact TEXT NOT NULL,
    word TEXT NOT NULL,
    platform TEXT NOT NULL,
    bucket BIGINT NOT NULL,                       -- shortest response time of its bucket in ms; -1 when it is not known
    amount BIGINT NOT NULL,
    PRIMARY KEY (dimension, subject, fact, word, platform, bucket)
);

-- When messages came, by the hour (UTC). What came stays counted when its session goes; old hours are removed.
CREATE TABLE statistics_hours (
    dimension TEXT NOT NULL,
    subject TEXT NOT NULL,
    hour BIGINT NOT NULL,                         -- its first millisecond
    messages BIGINT NOT NULL,
    PRIMARY KEY (dimension, subject, hour)
);
CREATE INDEX statistics_hours_old ON statistics_hours (hour);
