"""Sound models and folders, on which the doctor must be silent: each is what ``diagnose`` is given."""

import torch

from adapters_lesson import AdapterBank, AdapterConfig, SmallTransformer, SmallTransformerConfig
from adapters_lesson.course.patients import SIZE, batch_of, bert, llama, load, lora, optimizer_of, saved, trained
from adapters_lesson.exchange.adapterhub import export_adapterhub
from adapters_lesson.insertion import insert_adapters, set_trainable
from adapters_lesson.storage import save_adapter


def in_training(model):
    return {"model_or_folder": model, "optimizer": optimizer_of(model), "batch": batch_of(model)}


def just_made(folder):
    return {"model_or_folder": lora(llama())}


def ready_to_train(folder):
    return in_training(lora(bert(), task_type="SEQ_CLS"))


def after_some_steps(folder):
    return in_training(trained(lora(llama(), use_rslora=True)))


def loaded_to_answer(folder):
    folder = saved(trained(lora(bert(), task_type="SEQ_CLS")), folder)
    return {"model_or_folder": load(bert(), folder)}


def folder_of_peft(folder):
    return {"model_or_folder": saved(trained(lora(bert(), task_type="SEQ_CLS")), folder), "base": bert()}


def bottlenecks(folder):
    model = bert()
    insert_adapters(model, AdapterConfig(4))
    set_trainable(model)
    return in_training(model)


def small_bank():
    size = SmallTransformerConfig(hidden_size=16, intermediate_size=32, **SIZE)
    bank = AdapterBank(SmallTransformer(size))
    for name in ("film", "hotel"):
        bank.add(name, AdapterConfig(4, init="bert"), 2)
    return bank


def one_task_at_rest(folder):
    bank, ids = small_bank(), torch.randint(2, 40, (4, 6))
    return {"model_or_folder": bank, "optimizer": optimizer_of(bank), "batch": (ids, torch.ones_like(ids))}


def file_of_ours(folder):
    bank = small_bank()
    return {"model_or_folder": save_adapter(bank, folder, "hotel"), "base": bank}


def folder_of_adapterhub(folder):
    model = bert()
    insert_adapters(model, AdapterConfig(4, placement="pfeiffer"))
    set_trainable(model)
    return {"model_or_folder": export_adapterhub(trained(model), folder), "base": bert()}


def checkpointed(folder):
    model = lora(llama())
    model.gradient_checkpointing_enable({"use_reentrant": True})
    return in_training(model)


def warm_up_from_zero(folder):
    model = lora(llama().bfloat16())
    optimizer = optimizer_of(model, 1e-4)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    return {"model_or_folder": model, "optimizer": optimizer}


def merged_to_answer_faster(folder):
    model = load(llama(), saved(trained(lora(llama())), folder))
    model.merge_adapter()
    return {"model_or_folder": model}


def new_words_of_a_tied_model(folder):
    """The copies that are trained are more than all of the base, and are saved with the adapter."""
    model = llama(2000)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return in_training(lora(model, modules_to_save=["embed_tokens", "lm_head"]))


def one_beside_another_that_is_frozen(folder):
    model = trained(lora(llama()))
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.set_adapter(["default", "second"])
    for path, weight in model.named_parameters():
        weight.requires_grad_(".second." in path)
    return in_training(model)


def just_made_beside_the_embeddings(folder):
    """There A is zero at the beginning, and B is not."""
    return in_training(lora(llama(), target_modules=["embed_tokens", "q_proj"]))


def trained_and_saved_beside_the_embeddings(folder):
    return {"model_or_folder": saved(trained(lora(llama(), target_modules=["embed_tokens", "q_proj"])), folder)}


SOUND = [
    just_made_beside_the_embeddings,
    trained_and_saved_beside_the_embeddings,
    new_words_of_a_tied_model,
    one_beside_another_that_is_frozen,
    just_made, ready_to_train, after_some_steps, loaded_to_answer, folder_of_peft, bottlenecks, one_task_at_rest,
    file_of_ours, folder_of_adapterhub, checkpointed, warm_up_from_zero, merged_to_answer_faster,
]  # fmt: skip
