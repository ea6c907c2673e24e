-- Keep funnels by name, and read numbers of either sign out of data

-- both

-- A number of data, else null: data may hold anything, and one cast that fails would fail the whole question. Null for
-- what is not a number, or is beyond 1e300, where sums overflow; what float8 is too coarse for is zero. The CASEs are
-- nested because only they promise the order of evaluation. No SET clause, so that the planner can inline it.
CREATE FUNCTION analytics_number(value jsonb) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE
            WHEN abs(value::numeric) > 1e300 THEN NULL
            WHEN abs(value::numeric) < 1e-300 THEN 0
            ELSE value::numeric::float8
        END
    END;

-- Steps are those of a question: {"event_type": …, "where": [{"field": …, "operator": …, "value": …}], "name": …}.
CREATE TABLE analytics_funnels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE,
    description text,
    steps jsonb NOT NULL,
    conversion_window interval NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE analytics_funnels IS 'Funnels that are asked for by name; they hold no event.';
