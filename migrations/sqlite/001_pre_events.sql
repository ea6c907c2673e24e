-- Make the table of events, and show what is in them by name

-- Times are texts of 27 characters in UTC, 2026-11-30T09:15:00.000000Z, so that they sort as they follow each other. The
-- columns after `context` take no room: SQLite reads them out of the JSON, when they are asked for and at each insert.
--
-- `number` is what SQLite knows a row by: those that are stored later have a greater one, also after a VACUUM.
CREATE TABLE analytics_events (
    id TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    event_type TEXT NOT NULL,
    service TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    data TEXT NOT NULL,
    context TEXT,
    event_name TEXT GENERATED ALWAYS AS (coalesce(json_extract(data, '$.name'), event_type)) VIRTUAL,
    properties TEXT GENERATED ALWAYS AS (coalesce(json_extract(data, '$.properties'), data)) VIRTUAL,
    page_url TEXT GENERATED ALWAYS AS (
        coalesce(json_extract(data, '$.page_url'), json_extract(data, '$.url'), json_extract(data, '$.page'))
    ) VIRTUAL,
    referrer TEXT GENERATED ALWAYS AS (json_extract(data, '$.referrer')) VIRTUAL,
    hour TEXT GENERATED ALWAYS AS (substr(timestamp, 1, 13)) STORED,
    number INTEGER PRIMARY KEY,
    -- Identity is the pair, as on PostgreSQL.
    UNIQUE (timestamp, id)
    -- The sink sees to it that times are such texts, from 2000 up to 2100; whoever inserts by hand has to.
);

CREATE INDEX analytics_events_event_type_timestamp_idx ON analytics_events (event_type, timestamp);

-- By hour first: users come in any order, and an index by user is written all over, a page for each event. To find a
-- user's events one looks into each hour, 24 times for a day: `hour IN (SELECT h.hour FROM analytics_hours AS h)`. The
-- column is stored, because SQLite 3.40, when it joins by a virtual one and there are statistics, finds nothing.
CREATE INDEX analytics_events_hour_user_id_idx ON analytics_events (hour, user_id) WHERE user_id IS NOT NULL;

-- The hours that have events, 2026-11-30T09, by jumping from one to the next.
CREATE VIEW analytics_hours AS
WITH RECURSIVE hours (hour) AS (
    SELECT substr(min(e.timestamp), 1, 13) FROM analytics_events AS e
    UNION ALL
    SELECT (SELECT substr(min(e.timestamp), 1, 13) FROM analytics_events AS e WHERE e.timestamp > h.hour || '~')
    FROM hours AS h
    WHERE h.hour IS NOT NULL
)
SELECT h.hour FROM hours AS h WHERE h.hour IS NOT NULL;

-- The hours that a transaction changed. The sink notes those of what it inserts, because a trigger would run once per
-- row; whoever inserts by hand does as it does. Written in the same transaction as the events, so that both become
-- visible together.
CREATE TABLE analytics_changes (hour TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TRIGGER analytics_note_updates AFTER UPDATE ON analytics_events
BEGIN
    INSERT OR IGNORE INTO analytics_changes (hour) VALUES (substr(old.timestamp, 1, 13) || ':00:00.000000Z');
    INSERT OR IGNORE INTO analytics_changes (hour) VALUES (substr(new.timestamp, 1, 13) || ':00:00.000000Z');
END;

CREATE TRIGGER analytics_note_deletes AFTER DELETE ON analytics_events
BEGIN
    INSERT OR IGNORE INTO analytics_changes (hour) VALUES (substr(old.timestamp, 1, 13) || ':00:00.000000Z');
END;

-- Up to which number events were copied to another database. A number is given again only if the last rows were deleted:
-- then it goes back.
CREATE TABLE analytics_copies (
    target TEXT PRIMARY KEY,
    copied_until INTEGER NOT NULL
);

CREATE TRIGGER analytics_note_copies AFTER DELETE ON analytics_events
WHEN EXISTS (SELECT 1 FROM analytics_copies)
    AND old.number > coalesce((SELECT max(e.number) FROM analytics_events AS e), 0)
BEGIN
    UPDATE analytics_copies
    SET copied_until = min(copied_until, coalesce((SELECT max(e.number) FROM analytics_events AS e), 0));
END;
