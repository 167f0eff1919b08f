"""Who gave each value."""


def test_origins(files, folders):
    from jepakit.origins import origins

    found = origins(["recipe=ablations/thin", "data.size=64", "anti_collapse=stiller", "seed=3"], files, folders)
    by_key = {key: origin for key, (_, origin) in found.items()}
    assert by_key["distance"] == by_key["encoder.drop_path"] == by_key["tokenizer.name"] == "default"
    assert by_key["data.name"] == by_key["data.batch_size"] == by_key["trainer.epochs"] == "recipe base"
    assert by_key["optim.lr"] == by_key["masker.name"] == "recipe ablations/thin"
    assert by_key["masker.width"] == "option masker=thin"
    assert by_key["anti_collapse.still.pull"] == "option anti_collapse=stiller"
    assert (
        by_key["anti_collapse.still.name"]
        == by_key["recipe"]
        == by_key["data.size"]
        == by_key["seed"]
        == "command line"
    )
    assert found["data.root"] == ("???", "default") and found["seed"] == (3, "command line")


def test_a_variant_of_a_plugin_is_named_with_it():
    from jepakit.origins import origins

    assert origins(["encoder=vit_huge"])["encoder.width"] == (1280, "option encoder=vit_huge of plugin vit")


def test_what_a_branch_has_for_itself():
    from jepakit.origins import origins

    given = ["data.root=/videos", "branches.image.data.root=/images", "masker@branches.image.masker=random_tubes"]
    found = {key: origin for key, (_, origin) in origins(["recipe=vjepa21_vitl16", *given]).items()}
    assert found["branches.image.data.root"] == found["branches.image.masker.name"] == "command line"
    assert found["branches.image.data.name"] == found["branches.image.weight"] == "recipe vjepa21_vitl16"
    assert found["branches.image.data.crop_ratio"] == "option data=image_vjepa21 of plugin jepakit"
    assert found["branches.image.masker.ratio"] == "default" and found["data.fps"].startswith(
        "option data=video_vjepa2 "
    )
