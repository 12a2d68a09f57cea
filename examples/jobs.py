"""Jobs: whole Ray programs, sent to a cluster as a command.

Run `schedulemesh up` in another terminal first.
"""

from __future__ import annotations

import schedulemesh

PROGRAM = """
import os, ray
ray.init()
square = ray.remote(lambda n: n * n)
squares = ray.get([square.remote(n) for n in range(5)])
print("from", os.environ["RAY_MULTICLUSTER_CURRENT_CLUSTER"], squares)
"""


def main() -> None:
    """Run one job that works, one that fails, and one that is stopped."""
    with schedulemesh.connect() as client:
        jobs = client.options(cpus=1)
        good = jobs.submit_job(f"python -c '{PROGRAM}'")
        bad = jobs.submit_job("echo this will not end well; exit 3")
        endless = jobs.submit_job("sleep 1000")

        good.result()
        print(next(line for line in good.logs().splitlines() if line.startswith("from")))

        try:
            bad.result()
        except schedulemesh.SchedulerError as error:
            print("failed:", str(error).splitlines()[0])

        endless.cancel()
        schedulemesh.wait([endless])
        print("cancelled:", endless.cancelled())


if __name__ == "__main__":
    main()
