-- Aggregate the activity of cocoons by day
-- for: postgresql
CREATE TABLE analytics_cocoon_activity_daily_filled (
    day timestamptz NOT NULL,
    registrations bigint NOT NULL,
    connections bigint NOT NULL,
    disconnections bigint NOT NULL,
    claims bigint NOT NULL,
    avg_session_duration_seconds float8,
    unique_cocoons bigint NOT NULL
);
CREATE INDEX analytics_cocoon_activity_daily_filled_day_idx ON analytics_cocoon_activity_daily_filled (day);

-- A setup token that was created has no cocoon yet and no column here: it makes no row by itself.
CREATE FUNCTION analytics_cocoon_activity_daily_live(since timestamptz, until timestamptz)
    RETURNS SETOF analytics_cocoon_activity_daily_filled
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        date_bin('1 day', timestamp, '2000-01-01 00:00:00+00') AS day,
        count(*) FILTER (WHERE event_type = 'cocoon_registered') AS registrations,
        count(*) FILTER (WHERE event_type = 'cocoon_connected') AS connections,
        count(*) FILTER (WHERE event_type = 'cocoon_disconnected') AS disconnections,
        count(*) FILTER (WHERE event_type = 'cocoon_claimed') AS claims,
        avg(analytics_amount(data -> 'duration_seconds'))
            FILTER (WHERE event_type = 'cocoon_disconnected') AS avg_session_duration_seconds,
        count(DISTINCT data ->> 'cocoon_id') AS unique_cocoons
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until AND event_type IN (
        'cocoon_registered', 'cocoon_connected', 'cocoon_disconnected', 'cocoon_claimed',
        'cocoon_setup_token_used'
    )
    GROUP BY day;
    END;

INSERT INTO analytics_fills (view_name, bucket_column, step)
VALUES ('analytics_cocoon_activity_daily', 'day', '1 day');

CREATE VIEW analytics_cocoon_activity_daily AS
SELECT filled.*
FROM analytics_cocoon_activity_daily_filled AS filled
WHERE filled.day < (SELECT filled_until FROM analytics_fills WHERE view_name = 'analytics_cocoon_activity_daily')
UNION ALL
SELECT live.*
FROM analytics_fills AS fills, analytics_cocoon_activity_daily_live(fills.filled_until, 'infinity') AS live
WHERE fills.view_name = 'analytics_cocoon_activity_daily';
