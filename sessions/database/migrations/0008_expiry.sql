-- How long a session may be idle where that is its own affair: NULL is the setting, 0 is for ever.
ALTER TABLE sessions ADD COLUMN expire_after_ms BIGINT;
CREATE INDEX sessions_own_expiry ON sessions (status, expire_after_ms) WHERE expire_after_ms IS NOT NULL;
