/*
description: How late flights between two airports landed over the last days.
owner: data-platform@example.com
entity: [origin, dest]
ttl: 7 days
tags: {domain: traffic, refresh: continuous}
columns:
  arr_delay_30d: {type: number, unit: minute, description: Mean arrival delay of flights that landed in the last 30 days.}
  arr_late_share_30d: {type: number, description: Share of those flights that landed 15 or more minutes late.}
*/
SELECT
    origin,
    dest,
    actual_arrival AS event_time,
    avg(arr_delay) OVER d30 AS arr_delay_30d,
    avg((arr_delay >= 15)::INT) OVER d30 AS arr_late_share_30d
FROM raw.flights
WHERE actual_arrival IS NOT NULL AND arr_delay IS NOT NULL
WINDOW d30 AS (
    PARTITION BY origin, dest ORDER BY actual_arrival RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW
)
QUALIFY row_number() OVER (PARTITION BY origin, dest, actual_arrival ORDER BY flight_id) = 1
