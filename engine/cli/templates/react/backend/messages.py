"""Messages: `api.messages.list` and `api.messages.send` to the page."""

from headrace import (
    ConvexError,
    Id,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    mutation,
    query,
)

from .schema import Message

LETTERS_MAX = 2000


@query(name="list")
async def list_messages(ctx: QueryCtx, opts: PaginationOptions) -> Page[Message]:
    """A page of them, newest first; whoever shows it gets every change."""
    return await ctx.db.query(Message).order("desc").paginate(opts)


@mutation
async def send(ctx: MutationCtx, body: str) -> Id[Message]:
    """Add one, by whoever is signed in."""
    who = await ctx.auth.get_user_identity()
    if who is None:
        raise ConvexError("Sign in to write.")
    body = body.strip()
    if not 0 < len(body) <= LETTERS_MAX:
        raise ConvexError(f"A message has 1 to {LETTERS_MAX} letters.")
    author = who.get("name") or who["subject"]
    message = {"body": body, "author": author, "user": who["tokenIdentifier"]}
    return await ctx.db.insert(Message, message)
