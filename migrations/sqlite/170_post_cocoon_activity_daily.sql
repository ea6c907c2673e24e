-- Aggregate the activity of cocoons by day

-- A setup token that was created has no cocoon yet and no column here: it makes no row by itself.

INSERT INTO analytics_fills (view_name, bucket_column, step) VALUES ('analytics_cocoon_activity_daily', 'day', 'day');

CREATE VIEW analytics_cocoon_activity_daily_live AS
SELECT
    e.day,
    count(*) FILTER (WHERE e.event_type = 'cocoon_registered') AS registrations,
    count(*) FILTER (WHERE e.event_type = 'cocoon_connected') AS connections,
    count(*) FILTER (WHERE e.event_type = 'cocoon_disconnected') AS disconnections,
    count(*) FILTER (WHERE e.event_type = 'cocoon_claimed') AS claims,
    avg(CASE WHEN e.event_type = 'cocoon_disconnected' THEN e.duration_seconds END) AS avg_session_duration_seconds,
    count(DISTINCT json_extract(e.data, '$.cocoon_id')) AS unique_cocoons
FROM analytics_event_facts AS e
WHERE e.timestamp >= (SELECT f.live_since FROM analytics_fills AS f WHERE f.view_name = 'analytics_cocoon_activity_daily')
    AND e.timestamp < (SELECT f.live_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_cocoon_activity_daily')
    AND e.event_type IN (
        'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
        'cocoon_setup_token_used'
    )
GROUP BY e.day;

CREATE TABLE analytics_cocoon_activity_daily_filled (
    day TEXT NOT NULL,
    registrations INTEGER,
    connections INTEGER,
    disconnections INTEGER,
    claims INTEGER,
    avg_session_duration_seconds REAL,
    unique_cocoons INTEGER
);
CREATE INDEX analytics_cocoon_activity_daily_filled_day_idx ON analytics_cocoon_activity_daily_filled (day);

CREATE VIEW analytics_cocoon_activity_daily AS
SELECT
    filled.day, filled.registrations, filled.connections, filled.disconnections, filled.claims,
    filled.avg_session_duration_seconds, filled.unique_cocoons
FROM analytics_cocoon_activity_daily_filled AS filled
WHERE filled.day < (SELECT f.filled_until FROM analytics_fills AS f WHERE f.view_name = 'analytics_cocoon_activity_daily')
UNION ALL
SELECT
    live.day, live.registrations, live.connections, live.disconnections, live.claims,
    live.avg_session_duration_seconds, live.unique_cocoons
FROM analytics_cocoon_activity_daily_live AS live;
