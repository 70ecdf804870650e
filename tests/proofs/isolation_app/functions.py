from tests.proofs.isolation_side import make

from .app import left, right

made = make("", {"left": left, "right": right})
secret, peek, act, item, kept = made.secret, made.peek, made.act, made.item, made.kept
follow, fill = made.follow, made.fill
first_found, first_job = made.first_found, made.first_job
attempt, attempt_in_action = made.attempt, made.attempt_in_action
