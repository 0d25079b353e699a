"""State that survives: responses, their events, and conversations, in one SQLite file."""

from ponder.serve.store.database import StoreError as StoreError
from ponder.serve.store.records import Conversation as Conversation
from ponder.serve.store.records import Event as Event
from ponder.serve.store.records import Item as Item
from ponder.serve.store.records import Limits as Limits
from ponder.serve.store.records import NotFound as NotFound
from ponder.serve.store.records import Order as Order
from ponder.serve.store.records import Page as Page
from ponder.serve.store.records import Response as Response
from ponder.serve.store.records import Running as Running
from ponder.serve.store.records import Status as Status
from ponder.serve.store.records import TooLarge as TooLarge
from ponder.serve.store.store import Store as Store
