-- A sealed message holds no readable words (it is encrypted at rest), so it is never indexed.
ALTER TABLE messages ADD COLUMN is_sealed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX messages_sealed ON messages (session_id) WHERE is_sealed = 1;

-- What a message means, for the search by meaning: 384 numbers of 16 bits. Made in the background, only if that is switched on.
CREATE TABLE message_vectors (
    message_id BIGINT PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    vector $BYTES NOT NULL
);
