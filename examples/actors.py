"""Actors: objects that live on a cluster and keep their state there.

Run `schedulemesh up` in another terminal first; without it, a control plane and a local Ray start
inside this program.
"""

from __future__ import annotations

import schedulemesh


class Account:
    """Holds money; refuses to go below zero."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    def deposit(self, amount: int) -> int:
        """Add, and return the balance."""
        self.balance += amount
        return self.balance

    def withdraw(self, amount: int) -> int:
        """Take, and return the balance."""
        if amount > self.balance:
            message = f"{amount} is more than {self.balance}"
            raise ValueError(message)
        self.balance -= amount
        return self.balance


def main() -> None:
    """Show an actor's life."""
    with schedulemesh.connect() as client:
        account = client.options(name="account", cpus=0.5).actor(Account, balance=100)

        # Calling a method waits for its value.
        print("deposit:", account.deposit(50))

        # `remote` gives a future. Calls run in the order in which they were made.
        calls = [account.deposit.remote(1) for _ in range(10)]
        print("ten deposits:", [call.result() for call in calls])

        # An exception in a call is the caller's; the actor lives on.
        try:
            account.withdraw(1_000)
        except ValueError as error:
            print("refused:", error)
        print("still there:", account.withdraw(60))

        # Its state stays on its cluster; others reach it by its id.
        again = client.get_actor(account.actor_id)
        print("by id:", again.deposit(0))

        account.kill()
        try:
            account.deposit(1)
        except schedulemesh.SchedulerError as error:
            print("after its end:", type(error).__name__)


if __name__ == "__main__":
    main()
