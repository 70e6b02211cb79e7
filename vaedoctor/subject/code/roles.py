"""What the name of a value usually means in a VAE."""

from __future__ import annotations

import re

_ROLES = (
    (
        "logvar",
        r".*log.*(var|sig|std|scale).*|lv|ls|.*(sigma|std|var|scale|stddev)s?_?|lnvar|lsigma",
    ),
    (
        "weight",
        r".*(beta|weight|lambda|lambd|alpha|gamma|coef\w*|anneal\w*|m_n|kld_w|temperature|capacity)",
    ),
    ("step", r"epoch|step|batch_idx|batch_index|iteration|global_step|optimizer_idx|idx"),
    (
        "recon",
        r".*rec(on)?.*|.*_hat|xhat|.*_(prime|tilde|logits|out|pred)|outputs?|out|preds?|predictions?"
        r"|logits|decoded|generated|decode|decoder|y_pred|x_mu|mu_x|fake|probs?|p_x",
    ),
    ("mu", r"mu.*|.*_mu|means?_?|.*_means?|m|loc|.*_loc|q_m"),
    ("label", r"y|c|labels?|cond.*|class.*|attrs?|onehot|one_hot|y_true_label"),
    (
        "input",
        r"x|x\d|inputs?|inp|data|targets?|batch|imgs?|images?|orig.*|x_.*|.*_x|true|real|samples?|gt"
        r"|ground_truth|features|x_true|y_true",
    ),
    ("z", r"z.*|latents?|codes?|h"),
)
_WHOLE = re.compile(r"outputs?|out|results?|res|preds?|ret|(model|forward)_out.*", re.IGNORECASE)


def role(name: str) -> str | None:
    """What a name usually means in a VAE: `recon`, `input`, `mu`, `logvar`, `z`, ...; or None."""
    bare = name.lower().lstrip("_")
    return next((r for r, pattern in _ROLES if re.fullmatch(pattern, bare)), None)


def takes_all(name: str) -> bool:
    """Whether a parameter is called like all that forward returned."""
    return _WHOLE.fullmatch(name) is not None
