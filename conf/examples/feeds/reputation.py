#!/usr/bin/env python3
"""Scores clients from samples of their requests and denies the bad ones for a while.

Reads {"zone":"seen","remote_addr":"192.0.2.1","status":"404","ssl_ja4":""} from standard input, a
line each, and writes {"zone":"risk","key":"192.0.2.1","value":"deny","ttl":60} to standard output.
"""
import json
import sys
import time

# What an answer says about who asked. 403 is our own doing and says nothing.
POINTS = {"400": 2.0, "401": 2.0, "404": 1.0, "405": 1.0, "429": 1.0}
LIMIT = 20.0          # points
HALF_LIFE_S = 30.0    # after which a point is worth half
DENY_S = 60
CLIENTS_MAX = 100_000


def main():
    scores = {}
    for line in sys.stdin:
        try:
            sample = json.loads(line)
            client, status = sample["remote_addr"], sample["status"]
        except (ValueError, KeyError, TypeError):
            continue
        points = POINTS.get(status, 0.0)
        if points and score(scores, client, points) >= LIMIT:
            del scores[client]
            deny(client)


def score(scores, client, points):
    """Adds to what is left of the client's points, and gives the sum."""
    now = time.monotonic()
    before, at = scores.pop(client, (0.0, now))
    total = before * 0.5 ** ((now - at) / HALF_LIFE_S) + points
    scores[client] = (total, now)
    if len(scores) > CLIENTS_MAX:
        # The one that was not heard of for the longest time.
        del scores[next(iter(scores))]
    return total


def deny(client):
    change = {"zone": "risk", "key": client, "value": "deny", "ttl": DENY_S}
    print(json.dumps(change), flush=True)
    print(f"{client} is denied for {DENY_S} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
