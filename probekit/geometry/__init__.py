"""Geometry of points as plain functions: simplices, similarity of point sets, activity metrics."""

from .activity import feature_variance as feature_variance
from .activity import flattened_cosine as flattened_cosine
from .activity import gauge_rotation as gauge_rotation
from .activity import gini as gini
from .activity import mean_example_cosine as mean_example_cosine
from .activity import mean_norm as mean_norm
from .activity import outlier_ratio as outlier_ratio
from .activity import outlier_variance as outlier_variance
from .activity import pattern_constancy as pattern_constancy
from .activity import snr_db as snr_db
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
