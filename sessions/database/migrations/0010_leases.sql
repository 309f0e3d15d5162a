-- Which node does what of which only one may do at a time: hear an account, send for it, clean up. Times are the database's own.
-- A row stays when its lease is over, because its epoch must never come again.
CREATE TABLE leases (
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    node TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (account, kind)
);

-- The node that ran the turn last; empty on SQLite, where there is only one.
ALTER TABLE turns ADD COLUMN node TEXT;
