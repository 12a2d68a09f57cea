"""Many clusters as one, in the function style of `ray_multicluster_scheduler`.

Run `schedulemesh up` in another terminal first, or give a clusters file such as
`examples/clusters.yaml` as the argument.
"""

from __future__ import annotations

import sys

from ray_multicluster_scheduler.app.client_api import (
    get_job_logs,
    get_job_status,
    get_task_status,
    initialize_scheduler_environment,
    list_clusters,
    submit_actor,
    submit_job,
    submit_task,
    wait_for_all_jobs,
)


class Greeter:
    """Greets, and counts."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.greeted = 0

    def greet(self, name: str) -> str:
        """Return a greeting."""
        self.greeted += 1
        return f"{self.word}, {name}, number {self.greeted}"


def main() -> None:
    """Submit a function, an actor and a job without naming a cluster, and without Ray."""
    initialize_scheduler_environment(sys.argv[1] if sys.argv[1:] else None)
    print("clusters:", ", ".join(cluster.name for cluster in list_clusters()))

    task_id, value = submit_task(pow, args=(2, 10), resource_requirements={"CPU": 1})
    print("task:", value, get_task_status(task_id))

    try:
        submit_task(int, args=("seven",))
    except ValueError as error:
        print("remote exception:", error)

    _actor_id, greeter = submit_actor(Greeter, args=("Hello",))
    print("actor:", greeter.greet("Ada"))
    print("actor:", greeter.greet.remote("Grace").result())
    greeter.kill()

    job = submit_job("python -c 'print(6 * 7)'")
    wait_for_all_jobs([job], check_interval=0.2, timeout=60)
    print("job:", get_job_status(job), get_job_logs(job).split()[-1])


if __name__ == "__main__":
    main()
