import limit
import models
import numpy as np
import pytest


def session_of(name, folder):
    return limit.session_of(models.write(folder, name))


@pytest.mark.filterwarnings("ignore:Field onnx.AttributeProto.ints")  # of skl2onnx, about its own call
@pytest.mark.parametrize("name", ["mlp", "gbdt", "encoder2", "convnet"])
def test_rows_run_together_are_as_rows_run_alone(name, tmp_path):
    session = session_of(name, tmp_path)
    random = np.random.default_rng(1)
    alone = [{key: values if key == "attention_mask" else random.permuted(values, axis=-1) for key, values in models.row(name).items()} for _ in range(5)]
    together = session.run(None, {key: np.concatenate([row[key] for row in alone]) for key in alone[0]})
    for place, row in enumerate(alone):
        for batched, single in zip(together, session.run(None, row), strict=True):
            np.testing.assert_allclose(batched[place : place + 1], single, rtol=1e-4, atol=1e-5)


def test_the_small_encoder_does_not_see_what_its_mask_hides(tmp_path):
    session, row = session_of("encoder2", tmp_path), models.row("encoder2", 8)
    padded = {name: np.pad(values, ((0, 0), (0, 24)), constant_values=0) for name, values in row.items()}
    np.testing.assert_allclose(session.run(None, padded)[0], session.run(None, row)[0], rtol=1e-3, atol=1e-5)
