"""The state of a job, its cancellation, and the server's health."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attnscope.app.jobs.access import engine
from attnscope.app.jobs.words import pace, step
from attnscope.app.routes.answering import guarded, in_thread
from attnscope.app.routes.parameters import Parameters

_NEVER = {"Cache-Control": "no-store"}


async def health(request: Request) -> Response:
    """`GET /attnscope/health`: 200 while the engine is there; a worker is ready once it answers at once."""
    return JSONResponse(await in_thread(engine().health), headers=_NEVER)


async def status(request: Request) -> Response:
    """`GET /attnscope/jobs/{id}`: the job's snapshot, in words too; with `after`, its events after that number."""
    given = Parameters(request)
    after = given.optional("after")
    given.done()
    found = await in_thread(engine().status, request.path_params["id"])
    answer = {**asdict(found), "words": {"step": step(found), "pace": pace(found)}}
    if after is not None:
        events = await in_thread(engine().events, request.path_params["id"], after)
        answer["events"] = [asdict(event) for event in events]
    return JSONResponse(answer, headers=_NEVER)


async def cancel(request: Request) -> Response:
    """`POST /attnscope/jobs/{id}/cancel`: refused when another site's page asks."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return JSONResponse(
            {"error": "Only this dashboard's own pages may cancel a job.", "remedy": ""}, 403
        )
    await in_thread(engine().cancel, request.path_params["id"])
    found = await in_thread(engine().status, request.path_params["id"])
    return JSONResponse(asdict(found), headers=_NEVER)


ROUTES = [
    Route("/attnscope/health", guarded(health)),
    Route("/attnscope/jobs/{id}", guarded(status)),
    Route("/attnscope/jobs/{id}/cancel", guarded(cancel), methods=["POST"]),
]
