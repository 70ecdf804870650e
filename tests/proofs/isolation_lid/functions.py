from tests.proofs.isolation_side import make

made = make("left/lid", {})
secret, peek, act, item, kept = made.secret, made.peek, made.act, made.item, made.kept
follow, fill = made.follow, made.fill
first_found, first_job = made.first_found, made.first_job
attempt, attempt_in_action = made.attempt, made.attempt_in_action
