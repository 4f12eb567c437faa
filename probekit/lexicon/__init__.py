"""WordNet beside representations: similarities, matched tokens, and what inference needs.

``load_wordnet()`` reads NLTK's data, which ``probekit data wordnet`` installs. The published
comparison, x being an encoder's rows of ``PREFIX + gloss``:

    matches = match_tokens(wordnet, tokenize)
    rng = np.random.default_rng(42)
    sample = sample_pairs(len(matches), 3000, 500_000, rng)
    synsets = matches.synsets[sample.chosen]
    similarity = sample.of(path_similarity(wordnet, synsets))
    cosines = cosine_table(x, sample)
    alignment(similarity, sample.of(cosines))

and beside it what it leaves out:

    groups, nouns = pos_pairs(wordnet, synsets, sample), noun_pairs(wordnet, synsets, sample)
    eta_squared(similarity, groups)
    partial_correlation(similarity, sample.of(cosines), groups)
    alignment(similarity[nouns], sample.of(cosines)[nouns])
    node_permutation(similarity, cosines, sample)
    token_bootstrap(similarity, cosines, sample)
"""

from .alignment import Alignment as Alignment
from .alignment import Gradient as Gradient
from .alignment import alignment as alignment
from .alignment import eta_squared as eta_squared
from .alignment import partial_correlation as partial_correlation
from .alignment import similarity_gradient as similarity_gradient
from .all_pairs import all_pairs_bootstrap as all_pairs_bootstrap
from .bands import DISJOINT_BANDS as DISJOINT_BANDS
from .bands import PUBLISHED_BANDS as PUBLISHED_BANDS
from .bands import Band as Band
from .bands import band_cosines as band_cosines
from .baselines import PREFIX as PREFIX
from .baselines import bag_of_tokens as bag_of_tokens
from .baselines import encode_texts as encode_texts
from .baselines import jaccard as jaccard
from .baselines import random_encoder as random_encoder
from .chains import Decay as Decay
from .chains import HypernymPairs as HypernymPairs
from .chains import chain_decay as chain_decay
from .chains import hypernym_decay as hypernym_decay
from .chains import hypernym_pairs as hypernym_pairs
from .chains import published_chains as published_chains
from .clusters import lexname_clusters as lexname_clusters
from .content import information_content as information_content
from .content import intrinsic_content as intrinsic_content
from .content import jiang_conrath as jiang_conrath
from .content import lin as lin
from .content import resnik as resnik
from .data import find_wordnet as find_wordnet
from .data import install_wordnet as install_wordnet
from .inference import Bootstrap as Bootstrap
from .inference import NodePermutation as NodePermutation
from .inference import node_permutation as node_permutation
from .inference import token_bootstrap as token_bootstrap
from .matching import Matches as Matches
from .matching import match_tokens as match_tokens
from .pairs import PairSample as PairSample
from .pairs import cosine_table as cosine_table
from .pairs import noun_pairs as noun_pairs
from .pairs import pos_pairs as pos_pairs
from .pairs import sample_pairs as sample_pairs
from .senses import synsets_of as synsets_of
from .similarity import path_lengths as path_lengths
from .similarity import path_similarity as path_similarity
from .similarity import wu_palmer as wu_palmer
from .wordnet import WordNet as WordNet
from .wordnet import load_wordnet as load_wordnet
