from engine import Crons, internal

from .messages import prune

crons = Crons()
crons.daily("prune old messages", prune, hour=4, tz="Europe/Paris", args={"days": 30})
crons.interval("prune more", internal.messages.prune, minutes=5)
crons.weekly("prune most", "messages:prune", day_of_week="monday", hour_utc=4)
