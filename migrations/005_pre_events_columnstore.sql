-- Let the chunks of events be turned into columns, ordered so that they shrink most
-- for: timescaledb
-- By type, because the keys of data are those of the type; by time and id, because the primary key has to be in it.
ALTER TABLE analytics_events SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'event_type',
    timescaledb.orderby = 'timestamp DESC, id'
);
