"""Functions: submit, wait, map, fail, retry.

Run `schedulemesh up` in another terminal first; without it, a control plane and a local Ray start
inside this program.
"""

from __future__ import annotations

import math
import random

import schedulemesh


def is_prime(number: int) -> bool:
    """Decide slowly."""
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def moody(odds: float) -> str:
    """Fail at random."""
    if random.random() < odds:  # noqa: S311 - no secret depends on it
        message = "not today"
        raise ConnectionError(message)
    return "done"


def main() -> None:
    """Show the basics."""
    with schedulemesh.connect() as client:
        # One call: a future that is a concurrent.futures.Future and can be awaited.
        future = client.submit(is_prime, 2**31 - 1)
        print("2**31 - 1 is prime:", future.result(timeout=60))

        # Many calls, results in order. Short functions share warm workers.
        primes = [n for n, prime in enumerate(client.map(is_prime, range(100))) if prime]
        print("primes below 100:", primes)

        # Many calls, results as they come.
        futures = [client.submit(pow, base, 2) for base in range(5)]
        print("squares:", sorted(done.result() for done in schedulemesh.as_completed(futures)))

        # Exceptions are raised here as what they were there.
        try:
            client.submit(math.sqrt, -1).result()
        except ValueError as error:
            print("remote exception:", error)

        # Application errors are tried again only when asked for.
        patient = client.options(retry_exceptions=20, retry_backoff=0.01)
        print("after retries:", patient.submit(moody, 0.5).result())

        # A key of your own makes a submission idempotent: it runs once.
        once = client.options(key="basics-example")
        first, second = once.submit(pow, 2, 10), once.submit(pow, 2, 10)
        print("same task:", first.accepted() == second.accepted(), first.result())


if __name__ == "__main__":
    main()
