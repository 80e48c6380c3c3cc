"""Loss and accuracy: against a loop by hand."""

import pytest
import torch
import torch.nn.functional as F

from mipprune.errors import InputError
from mipprune.models import Dataset, batches
from mipprune.training import classification_loss, evaluate
from mipprune.training.evaluation import batch_length
from tests.training.networks import TinyNet


@pytest.mark.parametrize("batch_size", [7, 512])
def test_evaluate_equals_one_pass_over_everything(data: Dataset, batch_size: int) -> None:
    net = TinyNet(dropout=0.5)
    net.bn1.eval()
    ((x, y),) = batches(data, "test", 1000)
    found = evaluate(net, data, "test", batch_size=batch_size)
    # Modes are put back one by one.
    assert net.training
    assert not net.bn1.training
    logits = net.eval()(x)
    assert found.n_examples == 45
    assert found.accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)


def test_other_tasks_have_a_loss_and_no_accuracy(data: Dataset) -> None:
    class Regression:
        train = validation = test = ((torch.ones(4, 1, 8, 8), torch.ones(4, 3)),)

    found = evaluate(
        TinyNet(),
        Regression(),
        "test",
        criterion=lambda outputs, batch: F.mse_loss(outputs, batch[1]),
    )
    assert found.accuracy is None
    assert found.loss > 0


def test_bad_batches_are_refused() -> None:
    with pytest.raises(InputError, match="no target"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="run from 0 to 7"):
        classification_loss(torch.zeros(2, 3), (torch.zeros(2, 4), torch.tensor([0, 7])))
    assert batch_length(torch.zeros(5, 2)) == 5
    assert batch_length({"x": torch.zeros(4, 2), "labels": torch.zeros(4)}) == 4
    with pytest.raises(InputError, match="count the examples"):
        batch_length({"x": 3})


def test_label_smoothing_is_that_of_the_formula() -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0]])
    smoothed = classification_loss(logits, (torch.zeros(1), torch.tensor([0])), label_smoothing=0.3)
    log_p = logits.log_softmax(1)[0]
    torch.testing.assert_close(smoothed, -(0.7 * log_p[0] + 0.3 * log_p.mean()))
