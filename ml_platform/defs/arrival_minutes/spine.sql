-- One row per scheduled flight. The label is known once the aircraft has landed; a cancelled or diverted flight has none.
SELECT
    flight_id,
    carrier,
    flight,
    origin,
    dest,
    tailnum,
    scheduled_departure,
    scheduled_arrival,
    distance,
    CAST(arr_delay AS DOUBLE) AS arrival_delay,
    actual_arrival AS label_available_at
FROM raw.flights
