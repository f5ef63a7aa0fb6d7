"""The review page: a person looks at the candidates and says which of them show a shortcut.

`table` reads candidates lazily, `store` keeps decisions on disk, `pictures` draws, `app` answers the browser, `page`
serves it and `export` writes one file for a colleague. Nothing else in hf-score imports this package, and only `app`
needs FastAPI.
"""

from .export import export_page
from .store import DecisionStore
from .table import CandidateCluster, CandidateTable

__all__ = ["CandidateCluster", "CandidateTable", "DecisionStore", "export_page"]
