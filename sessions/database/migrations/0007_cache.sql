-- How often the memory of hot sessions helped, by day (UTC); every node adds its own. Days are kept for two weeks.
CREATE TABLE cache_counts (
    day BIGINT PRIMARY KEY,                       -- its first millisecond
    hits BIGINT NOT NULL,
    misses BIGINT NOT NULL
);
