-- The words of every message that is not sealed, up to the id in search_progress. Newer ones are added in the background, so that
-- nobody's message waits for it; a search reads them besides. session_id is indexed as a word too: a search in one person's sessions
-- need not look at everybody's hits.
CREATE VIRTUAL TABLE message_words USING fts5 (
    content, session_id, content = 'messages', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TABLE search_progress (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    indexed_to BIGINT NOT NULL
);

-- An id may come late (an import keeps ids), or go and change at any time.
CREATE TRIGGER message_words_inserted AFTER INSERT ON messages
WHEN NEW.is_sealed = 0 AND NEW.id <= (SELECT indexed_to FROM search_progress)
BEGIN
    INSERT INTO message_words (rowid, content, session_id) VALUES (NEW.id, NEW.content, NEW.session_id);
END;

CREATE TRIGGER message_words_deleted AFTER DELETE ON messages
WHEN OLD.is_sealed = 0 AND OLD.id <= (SELECT indexed_to FROM search_progress)
BEGIN
    INSERT INTO message_words (message_words, rowid, content, session_id)
    VALUES ('delete', OLD.id, OLD.content, OLD.session_id);
END;

CREATE TRIGGER message_words_updated AFTER UPDATE OF content, session_id, is_sealed ON messages
WHEN OLD.id <= (SELECT indexed_to FROM search_progress)
BEGIN
    INSERT INTO message_words (message_words, rowid, content, session_id)
    SELECT 'delete', OLD.id, OLD.content, OLD.session_id WHERE OLD.is_sealed = 0;
    INSERT INTO message_words (rowid, content, session_id)
    SELECT NEW.id, NEW.content, NEW.session_id WHERE NEW.is_sealed = 0;
END;

CREATE TRIGGER message_vectors_outdated AFTER UPDATE OF content, is_sealed ON messages
BEGIN
    DELETE FROM message_vectors WHERE message_id = OLD.id;
END;

INSERT INTO message_words (rowid, content, session_id) SELECT id, content, session_id FROM messages ORDER BY id;
INSERT INTO search_progress (one, indexed_to) SELECT 1, COALESCE(MAX(id), 0) FROM messages;
