"""`POST /features/{view}`: pushes rows into a feature view between its computations."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ml_platform.serving.feature_push.service import Pusher
from ml_platform.serving.http.messages import encode
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.prediction.route_adapter import RouteAdapter, own_error


def push_routes(adapter: RouteAdapter, pusher: Pusher) -> list[BaseRoute]:
    """Build the route."""

    def count(request: Request, status: int) -> None:
        if status != 200:
            pusher.count_refused(request.path_params["view"], status)

    @adapter.shaped(own_error, count)
    async def push(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        context.check()
        body = await adapter.body(request)
        answer = await pusher.push(request.path_params["view"], body, context.request_id, context.caller)
        context.rows = answer.accepted
        return Response(encode(answer), media_type="application/json")

    return [Route("/features/{view}", push, methods=["POST"], include_in_schema=False)]
