"""The catalogue: everything that can be said, one class an event, one file an area."""

from asgi_analytics.events.accounts import *
from asgi_analytics.events.auth import *
from asgi_analytics.events.base import USER_NAMESPACE as USER_NAMESPACE
from asgi_analytics.events.base import EnrichedEvent as EnrichedEvent
from asgi_analytics.events.base import Event as Event
from asgi_analytics.events.base import Personal as Personal
from asgi_analytics.events.captured import *
from asgi_analytics.events.cocoons import *
from asgi_analytics.events.deals import *
from asgi_analytics.events.integrations import *
from asgi_analytics.events.messages import *
from asgi_analytics.events.missions import *
from asgi_analytics.events.named import *
from asgi_analytics.events.profiles import *
from asgi_analytics.events.projects import *
from asgi_analytics.events.search import *
from asgi_analytics.events.tasks import *
