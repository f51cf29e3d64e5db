"""Descriptions and the knowledge base made of them."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from excel_core.config.base import Positive, Seed, Spec
from excel_core.errors import SettingError

__all__ = ["DescribeSpec", "KnowledgeSpec"]


class DescribeSpec(Spec):
    """Class descriptions (method 1)."""

    provider: Literal["bundled", "file", "openai", "none"] = Field(
        "bundled",
        description="where the descriptions come from: excel, a file (describe.file: your own or the authors'), a "
        "language model behind an OpenAI-compatible server, or nowhere, for knowledge.mode=none",
    )
    file: str | None = Field(
        None, description="file: JSON with the descriptions of every class, excel's or the authors' form; lower-cased"
    )
    n: Annotated[int, Field(ge=1, le=100)] = Field(20, description="descriptions per class")
    instruction: str | None = Field(None, description="openai: file with the request; None: prompts/describe.md")
    model: Annotated[str, Field(min_length=1)] = Field("gpt-4.1-mini", description="openai: name of the model")
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")] | None = Field(
        None, description="openai: another server, e.g. http://127.0.0.1:11434/v1; None: OpenAI's"
    )
    secret: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(
        None, description="openai: Prefect Secret block that holds the API key; None: the variable OPENAI_API_KEY"
    )
    insecure_http: bool = Field(
        False, description="openai: let the API key go to another machine over plain http://, where others can read it"
    )
    structured: Literal["json_schema", "json_object", "text"] = Field(
        "json_schema", description="openai: how the reply's form is asked for; for servers that know no schema, or no JSON mode"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="openai: of sampling; None: the server's own"
    )
    concurrency: Annotated[int, Field(ge=1, le=8)] = Field(4, description="openai: requests at a time")
    timeout: Annotated[float, Field(gt=0, le=3600)] = Field(120, description="openai: seconds that a whole reply may take")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="openai: tries after the first one fails by rate limit, server error, time or connection"
    )
    input_price: Annotated[float, Field(ge=0)] | None = Field(None, description="openai: USD per million prompt tokens")
    output_price: Annotated[float, Field(ge=0)] | None = Field(None, description="openai: USD per million completion tokens")

    @field_validator("base_url", mode="before")
    @classmethod
    def _no_credentials(cls, value: Any) -> Any:
        """Refused with words of its own: pydantic's would show the URL."""
        if isinstance(value, str) and any(sign in value for sign in "@?#"):
            raise SettingError(
                "describe.base_url: must be http(s)://HOST[:PORT]/PATH without user, password, query or fragment; "
                "the key belongs into OPENAI_API_KEY or a Prefect Secret block (describe.secret)"
            )
        return value


class KnowledgeSpec(Spec):
    """Text semantic enrichment (method 1, eqs. 2-4)."""

    mode: Literal["attributes", "class_means", "own_descriptions", "none"] = Field(
        "attributes",
        description="enrich by k-means attributes; by the C class means of descriptions, taken as attributes; by the mean of "
        "the class's own descriptions; or not at all",
    )
    attributes_file: str | None = Field(
        None, description="attributes: ready centroids (.pth, .npy or .safetensors) instead of k-means"
    )
    attributes: Positive | None = Field(
        112, description="k-means clusters over all descriptions; None: a quarter of them, at most 112"
    )
    keep: Positive | None = Field(None, description="TOP-K attributes per class; None drops the lowest tenth")
    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="lambda in T_c = t_c + lambda * sum")
    normalise: bool = Field(True, description="T_c to unit length (published); eq. 4 does not")
    n_init: Positive = Field(10, description="k-means: random starts, of which the best is taken")
    seed: Seed = Field(0, description="random state of k-means")
