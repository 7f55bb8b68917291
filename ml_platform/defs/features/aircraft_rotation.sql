/*
description: What the aircraft's last known leg from New York did; a row when it left and one when it landed.
owner: data-platform@example.com
entity: [tailnum]
ttl: 2 days
tags: {domain: fleet, refresh: continuous}
columns:
  airborne: {type: boolean, description: It has left and has not been reported landed.}
  dep_delay: {type: number, unit: minute, description: Departure delay of that leg.}
  arr_delay: {type: number, unit: minute, description: Arrival delay of that leg; null while it is airborne.}
  distance: {type: integer, unit: mile, description: Length of that leg.}
  back_at: {type: number, unit: hour, description: "Earliest time it could be back and ready, hour of the UTC day: landing (expected while airborne), the same time back, 45 minutes on the ground at both ends."}
*/
WITH legs AS (
    SELECT *, scheduled_arrival - scheduled_departure AS scheduled_duration
    FROM raw.flights
    WHERE tailnum IS NOT NULL AND actual_departure IS NOT NULL
),
known AS (
    SELECT
        tailnum, actual_departure AS event_time, true AS airborne, dep_delay, NULL AS arr_delay, distance,
        actual_departure + 2 * scheduled_duration + INTERVAL 90 MINUTES AS back_at, flight_id
    FROM legs
    UNION ALL
    SELECT
        tailnum, actual_arrival, false, dep_delay, arr_delay, distance,
        actual_arrival + scheduled_duration + INTERVAL 90 MINUTES, flight_id
    FROM legs WHERE actual_arrival IS NOT NULL
)
SELECT
    tailnum, event_time, airborne, dep_delay, arr_delay, distance, epoch(back_at) / 3600 % 24 AS back_at
FROM known
QUALIFY row_number() OVER (PARTITION BY tailnum, event_time ORDER BY airborne, flight_id DESC) = 1
