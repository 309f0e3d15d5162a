-- Encryption at rest: the mark of sealed values, which keys they are under, and a value that proves the keys.
CREATE TABLE seals (
    id INTEGER PRIMARY KEY,                       -- always 1
    mark TEXT NOT NULL,
    key_ids TEXT NOT NULL,                        -- JSON
    proof TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- What was done to people's data, without any of it.
CREATE TABLE audit (
    id $SERIAL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,                          -- operator | person
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    counts TEXT NOT NULL                          -- JSON: how many rows of what
);

-- People who asked to be forgotten, until nothing is left of them; how far each removal came.
CREATE TABLE erasures (
    person_id TEXT PRIMARY KEY,
    requested_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    stage TEXT NOT NULL,
    after BIGINT NOT NULL DEFAULT 0,
    not_before BIGINT NOT NULL DEFAULT 0,
    counts TEXT NOT NULL DEFAULT '{}'
);
