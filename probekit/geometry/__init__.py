"""Geometry of points as plain functions: simplices and their volumes, similarity of point sets."""

from .similarity import Procrustes as Procrustes
from .similarity import cka as cka
from .similarity import cka_null as cka_null
from .similarity import cosine_similarity as cosine_similarity
from .similarity import procrustes as procrustes
from .similarity import procrustes_null as procrustes_null
from .simplex import cayley_menger as cayley_menger
from .simplex import n_edges as n_edges
from .simplex import published_simplex as published_simplex
from .simplex import regular_simplex as regular_simplex
from .simplex import simplex_volume as simplex_volume
from .simplex import squared_distances as squared_distances
