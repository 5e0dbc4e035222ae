"""A server under load from a second process: latency, overload, reloads.

    python benchmarks/serving.py --out benchmarks/results/serving.json
    python benchmarks/serving.py --only-reloads --out benchmarks/results/serving.json
    python benchmarks/serving.py --table benchmarks/results/serving.json

The server is a process with a two-layer GCN of 4 bits on a generated graph of ogbn-arxiv's size.
Requests arrive at times drawn ahead (open loop, seeded), and latency counts from these times, so
that a server that falls behind is charged for it. Requests in flight are bounded by ``--bound``;
where that is reached, later ones wait, and their wait counts too. Kinds are ``nodes`` (one node of
the graph), ``sampled`` (one node, 10 neighbours in each of two hops) and ``new`` (one new node with
eight edges). With ``--only-reloads`` the rest stays as the file has it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

GRAPH = "random:169343:1166243"
NODES, FEATURES = 169_343, 128
TITLE = """# Serving

Made by `python benchmarks/serving.py --table`; its text says what was measured, and how.

"""


def serve(folder: Path, threads: int, queue: int) -> None:
    """The server process."""
    import torch
    from torch_geometric.data import Data
    from torch_geometric.nn import GCN

    import nodebits
    from nodebits.bench.speed.graphs import load_graph
    from nodebits.serving.served import Loaded
    from nodebits.serving.server import Server
    from nodebits.serving.service import Service
    from nodebits.serving.settings import Serving
    from nodebits.tasks import find_task
    from nodebits.train import NodeProblem

    torch.set_num_threads(threads)
    bench = load_graph(GRAPH)
    x, edge_index = bench.features(), bench.graph.edge_index()
    path = folder / "model.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        model = GCN(x.size(1), 128, 2, bench.num_classes).eval()
        prepared = nodebits.prepare(model, nodebits.UniformConfig(bits=4, mode="ptq"))
        nodebits.calibrate(prepared, [(x, edge_index)])
        nodebits.convert(prepared).save(path)
    ring = torch.arange(x.size(0))
    masks = {f"{name}_mask": ring % 3 == i for i, name in enumerate(("train", "val", "test"))}
    labels = ring // 3 % bench.num_classes
    problem = NodeProblem(Data(x=x, edge_index=edge_index, y=labels, **masks))

    def load() -> Loaded:
        return Loaded(nodebits.load(path), find_task("node"), "arxiv-sized", problem)

    service = Service(load, path, Serving(port=0, watch=0, queue=queue))
    Server(service, lambda address: print(address, flush=True)).run()


class Target:
    """A server process, and what it takes of memory."""

    def __init__(self, folder: Path, threads: int, queue: int) -> None:
        command = [sys.executable, __file__, "--serve", str(folder)]
        command += ["--threads", str(threads), "--queue", str(queue)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def resident(self) -> float:
        """MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """Seconds of processor time so far: what others on the machine do not change."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def body_of(kind: str, rng: random.Random) -> bytes:
    """A request of a kind."""
    node = rng.randrange(NODES)
    if kind == "nodes":
        return b'{"nodes":[%d]}' % node
    if kind == "sampled":
        return b'{"nodes":[%d],"num_neighbors":[10,10],"seed":%d}' % (node, node)
    edges = [[rng.randrange(NODES), NODES] for _ in range(8)]
    x = [round(rng.gauss(0, 1), 4) for _ in range(FEATURES)]
    return json.dumps({"new_nodes": {"x": [x], "edges": edges}}).encode()


class Client:
    """Connections that are kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> int:
        """The status of an answer."""
        pair = (
            self._free.pop()
            if self._free
            else await asyncio.open_connection("127.0.0.1", self._port)
        )
        reader, writer = pair
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._free.append(pair)
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def load(
    target: Target, kind: str, rate: float, seconds: float, bound: int
) -> dict[str, Any]:
    """Sends requests at a rate; returns statuses, and percentiles of those that were answered."""
    rng = random.Random(f"{kind}{rate}")
    arrivals, at = [], 0.0
    while at < seconds:
        arrivals.append((at, body_of(kind, rng)))
        at += rng.expovariate(rate)
    client, room = Client(target.port), asyncio.Semaphore(bound)
    for _ in range(5):
        await client.ask(arrivals[0][1])
    statuses: dict[str, int] = {}
    times: list[float] = []
    cpu, began = target.cpu(), time.perf_counter() + 0.05

    async def one(due: float, body: bytes) -> None:
        async with room:
            try:
                status = str(await client.ask(body))
            except (OSError, asyncio.IncompleteReadError, IndexError) as error:
                status = type(error).__name__
        statuses[status] = statuses.get(status, 0) + 1
        if status == "200":
            times.append(time.perf_counter() - began - due)

    tasks = []
    for due, body in arrivals:
        wait = began + due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(due, body)))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    client.close()
    found = np.percentile(np.array(times or [float("nan")]) * 1000, [50, 90, 99, 99.9])
    return {
        "kind": kind,
        "rate": rate,
        "requests": len(arrivals),
        "statuses": statuses,
        "answered_per_second": len(times) / took,
        "cpu_ms": round(1000 * (target.cpu() - cpu) / len(arrivals), 3),
        "ms": dict(zip(("p50", "p90", "p99", "p99.9"), np.round(found, 3).tolist(), strict=True)),
    }


async def reloads(target: Target, count: int, folder: Path) -> dict[str, Any]:
    """Replaces the model and asks for a reload as often as told, while requests come."""
    client, statuses, over = Client(target.port), {}, asyncio.Event()

    async def asking() -> None:
        rng = random.Random(7)
        while not over.is_set():
            try:
                status = str(await client.ask(body_of("nodes", rng)))
            except (OSError, asyncio.IncompleteReadError, IndexError) as error:
                status = type(error).__name__
            statuses[status] = statuses.get(status, 0) + 1
            await asyncio.sleep(0.004)

    async def loads() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return int(float(text.split('nodebits_reloads_total{result="ok"} ')[1].split()[0]))

    task = asyncio.create_task(asking())
    first = await loads()
    began, resident = time.perf_counter(), [target.resident()]
    for i in range(count):
        target.process.send_signal(signal.SIGHUP)
        while await loads() < first + i + 1:
            await asyncio.sleep(0.01)
        if i + 1 in (count // 10, count // 2, count):
            await asyncio.sleep(0.1)  # the old model goes when the new one is counted
            resident.append(target.resident())
    took = time.perf_counter() - began
    over.set()
    await task
    client.close()
    return {
        "reloads": count,
        "seconds": round(took, 1),
        "statuses": statuses,
        "resident_mib": [round(v) for v in resident],
    }


def _where(loads: dict[str, Any]) -> str:
    """On which machine reloads were repeated, if it is another than that of the table."""
    return f"By themselves and later, on a machine with {loads['isa']}: " if "isa" in loads else ""


def measure_reloads(args: argparse.Namespace) -> dict[str, Any]:
    """The reloads of a server that was not under load before."""
    from nodebits.ops import current_isa

    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder), args.threads, args.queue)
        found = asyncio.run(reloads(target, args.reloads, Path(folder)))
        target.stop()
    return {**found, "isa": current_isa()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    from nodebits.bench.environment import describe_environment
    from nodebits.ops import current_isa

    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder), args.threads, args.queue)
        rows = []
        for kind, rates in (
            ("nodes", args.rates),
            ("sampled", args.rates),
            ("new", args.rates[:2]),
        ):
            for rate in rates:
                rows.append(asyncio.run(load(target, kind, rate, args.seconds, args.bound)))
                print(json.dumps(rows[-1]), flush=True)
        best = max(row["answered_per_second"] for row in rows if row["kind"] == "sampled")
        before = target.resident()
        over = asyncio.run(load(target, "sampled", 10 * best, args.seconds, 4 * args.queue))
        over["resident_mib"] = [round(before), round(target.resident())]
        print(json.dumps(over), flush=True)
        loads = asyncio.run(reloads(target, args.reloads, Path(folder)))
        print(json.dumps(loads), flush=True)
        ended = target.stop()
    environment = {**describe_environment(), "isa": current_isa(), "cores": os.cpu_count()}
    environment["load_average"] = round(os.getloadavg()[0], 1)
    return {
        "environment": environment,
        "server_threads": args.threads,
        "rows": rows,
        "overload": over,
        "reloads": loads,
        "status_at_the_end": ended,
    }


def table(found: dict[str, Any]) -> str:
    """Results as Markdown."""
    where = found["environment"]
    lines = [
        TITLE + f"{where['processor']}, {where['isa']}, {where['cores']} cores, the server with "
        f"{found['server_threads']} thread(s).",
        f"The load average of the machine was {where['load_average']} at the end.",
        "",
        "| kind | requests/s | p50 ms | p90 ms | p99 ms | p99.9 ms | cpu ms | statuses |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in [*found["rows"], found["overload"]]:
        ms = " | ".join(f"{row['ms'][p]:.2f}" for p in ("p50", "p90", "p99", "p99.9"))
        told = ", ".join(f"{count} of {status}" for status, count in row["statuses"].items())
        lines.append(f"| {row['kind']} | {row['rate']:.0f} | {ms} | {row['cpu_ms']:.2f} | {told} |")
    over, loads = found["overload"], found["reloads"]
    told = ", ".join(f"{count} of {status}" for status, count in loads["statuses"].items())
    lines += [
        "",
        "Processor time is that of the server for a request, whatever else the machine does.",
        "The last row is ten times what the server answered at best.",
        f"Its memory was {over['resident_mib'][0]} MiB before and {over['resident_mib'][1]} MiB "
        "after it.",
        f"{_where(loads)}{loads['reloads']} reloads under load took {loads['seconds']} s; "
        f"requests: {told}.",
        "Memory before, after a tenth, after half and after all of them: "
        f"{', '.join(map(str, loads['resident_mib']))} MiB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, or prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file of results")
    parser.add_argument("--table", type=Path, help="print the results of a file as Markdown")
    parser.add_argument("--only-reloads", action="store_true", help="replace these in the file")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 200, 400])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--bound", type=int, default=64, help="requests in flight")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())), end="")
    elif args.serve:
        serve(args.serve, args.threads, args.queue)
    else:
        if args.only_reloads:
            found = {**json.loads(args.out.read_text()), "reloads": measure_reloads(args)}
        else:
            found = measure(args)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
