"""Routing: who decides where work runs, and how to see why.

Run `schedulemesh up` in another terminal first: its clusters have the tags `east` and `west`.
"""

from __future__ import annotations

import os
import sys

import schedulemesh
from schedulemesh import Client


def where() -> str:
    """Say which cluster runs this."""
    return os.environ["SCHEDULEMESH_CLUSTER"]


def show(client: Client, task_id: str) -> None:
    """Print what each cluster says about a task."""
    explanation = client.explain(task_id)
    print(f"{task_id}: {explanation['message']}")
    for verdict in explanation["clusters"]:
        print(f"  {verdict['cluster']:<10} {verdict['code']:<12} {verdict['message']}")


def main() -> None:
    """Send work to places, and ask for reasons."""
    with schedulemesh.connect() as client:
        names = [cluster["spec"]["name"] for cluster in client.clusters()]
        if len(names) < 2:  # noqa: PLR2004 - routing between fewer is no routing
            sys.exit("this example needs two clusters: run `schedulemesh up` first")
        first, second = sorted(names)[:2]

        # Hard: the cluster must have the tag. Soft: it is more welcome. Anti: it must not.
        print("tag:       ", client.options(tags=[second]).submit(where).result())
        print("preferred: ", client.options(prefer_tags=[second]).submit(where).result())
        print("avoided:   ", client.options(avoid_tags=[second]).submit(where).result())
        print("by name:   ", client.options(cluster=first).submit(where).result())

        # What no cluster can ever run is refused at once, with the reason of each cluster.
        try:
            client.options(cpus=1_000).submit(where).result()
        except schedulemesh.SchedulerError as error:
            print("refused:   ", error.code)
            for detail in error.details:
                print("            ", detail)

        # What must wait says why, in numbers.
        patient = client.options(cpus=1_000, wait_for_growth=True).submit(where)
        show(client, patient.accepted())
        patient.cancel()


if __name__ == "__main__":
    main()
