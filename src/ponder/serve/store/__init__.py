"""State that survives: responses, their events, and conversations, in one SQLite file."""

from ponder.serve.store.database import StoreError as StoreError
from ponder.serve.store.records import Page as Page
from ponder.serve.store.records import ResponseStatus as ResponseStatus
from ponder.serve.store.records import RunMode as RunMode
from ponder.serve.store.records import SortOrder as SortOrder
from ponder.serve.store.records import StoredConversation as StoredConversation
from ponder.serve.store.records import StoredEvent as StoredEvent
from ponder.serve.store.records import StoredItem as StoredItem
from ponder.serve.store.records import StoredResponse as StoredResponse
from ponder.serve.store.records import StoreLimits as StoreLimits
from ponder.serve.store.records import TooLarge as TooLarge
from ponder.serve.store.store import Store as Store
from ponder.serve.store.store import open_store as open_store
