"""From an event, or from a record of a captured one, to the JSON line that is queued, sent and stored."""
