-- Log what was done for a person who asked, without saying who it was; let each table say where it holds a person

-- A request that is not completed was interrupted: the same command goes on with it.
CREATE TABLE analytics_subject_requests (
    -- A UUID, version 4.
    id TEXT PRIMARY KEY DEFAULT (
        lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2))) || '-4' || substr(lower(hex(randomblob(2))), 2)
        || '-' || substr('89ab', abs(random() % 4) + 1, 1) || substr(lower(hex(randomblob(2))), 2)
        || '-' || lower(hex(randomblob(6)))
    ),
    -- HMAC-SHA256 of the user's UUID under the key of analytics_subject_key, in hex.
    subject TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('export', 'anonymise', 'erase')),
    requested_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    due_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+30 days')),
    completed_at TEXT,
    -- How many rows there were, by table; JSON.
    rows TEXT NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX analytics_subject_requests_open_idx ON analytics_subject_requests (subject, kind)
    WHERE completed_at IS NULL;
CREATE INDEX analytics_subject_requests_requested_at_idx ON analytics_subject_requests (requested_at);

-- Whoever has the requests and not this key cannot try users: a UUIDv5 of a number is quickly guessed, and so is its
-- plain hash. In a table of its own, so that a copy of the requests can leave it out.
CREATE TABLE analytics_subject_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL
);
INSERT INTO analytics_subject_key (id, key) VALUES (1, randomblob(32));

-- Says in which form a column holds a person, or that a table holds none, as the function of this name does on
-- PostgreSQL. Each table has a row here. The forms are
--
-- - user: the UUID of a user; null when the user is anonymised;
-- - owner: the UUID of the user whom the row is about; the row goes also when the user is anonymised;
-- - session: what connects the events of a visit;
-- - event: JSON with what happened, or all of an event;
-- - text: words out of events, in which an id may be quoted; with a user beside it, only the user's own rows are
--   changed.
--
-- A table that holds no person has the form none, and no column.
CREATE TABLE analytics_holds_person (
    relation TEXT NOT NULL,
    form TEXT NOT NULL CHECK (form IN ('none', 'user', 'owner', 'hash', 'session', 'event', 'text')),
    name TEXT CHECK ((form = 'none') = (name IS NULL))
);
CREATE UNIQUE INDEX analytics_holds_person_idx ON analytics_holds_person (relation, coalesce(name, ''));
