"""Networks and data sets: by name, from trained weights, or anybody's own.

Importing this package loads torch and numpy only; scikit-learn, Pillow,
safetensors and transformers are imported by the functions that need them.
"""

from mipprune.models._batch import (
    TARGET_KEYS,
    Forward,
    check_labels,
    main_output,
    move_batch,
    run_model,
    split_batch,
)
from mipprune.models._batches import DataSource, augment_images, batches, check_data, epoch_order
from mipprune.models._dataset import (
    SPLITS,
    Augmentation,
    Dataset,
    ImageSource,
    Split,
    TensorSource,
    make_dataset,
    stratified_holdout,
)
from mipprune.models._factory import load_factory, load_model, load_weights, read_state_dict
from mipprune.models._files import DATA_VARIABLE
from mipprune.models._glosses import (
    TextDataset,
    TextSplit,
    TokenSource,
    load_glosses,
    token_batches,
    token_source,
)
from mipprune.models._load import data_names, load_data
from mipprune.models._registry import build_model, model_names, require_model_name
from mipprune.models.pretrained import (
    Pretrained,
    SentenceEncoder,
    load_digit_cnn,
    load_efficientnet_lite0,
    load_minilm,
    sentence_embedding,
)

__all__ = [
    "DATA_VARIABLE",
    "SPLITS",
    "TARGET_KEYS",
    "Augmentation",
    "DataSource",
    "Dataset",
    "Forward",
    "ImageSource",
    "Pretrained",
    "SentenceEncoder",
    "Split",
    "TensorSource",
    "TextDataset",
    "TextSplit",
    "TokenSource",
    "augment_images",
    "batches",
    "build_model",
    "check_data",
    "check_labels",
    "data_names",
    "epoch_order",
    "load_data",
    "load_digit_cnn",
    "load_efficientnet_lite0",
    "load_factory",
    "load_glosses",
    "load_minilm",
    "load_model",
    "load_weights",
    "main_output",
    "make_dataset",
    "model_names",
    "move_batch",
    "read_state_dict",
    "require_model_name",
    "run_model",
    "sentence_embedding",
    "split_batch",
    "stratified_holdout",
    "token_batches",
    "token_source",
]
