/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cut a small model out of a large one, tune the small one, and give what its experts learned back to the large one:
 *     prune_and_merge MODEL_FOLDER MASK_FILE DOCUMENTS OUT_FOLDER
 * Writes OUT_FOLDER/small (the tuned subset) and OUT_FOLDER/merged (the whole model).
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

static emo_status tune(emo_model *model, const emo_dataset *data, emo_error *err) {
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;

    options.train_only = EMO_TRAIN_EXPERTS; /* the rest stays what the large model has */
    options.lr = 1e-3f;
    options.max_steps = 10;
    options.batch_rows = 4;
    options.seq_len = 64;
    EMO_TRY(emo_trainer_create(model, data, &options, &trainer, err));
    EMO_TRY(emo_trainer_run(trainer, err));
done:
    emo_trainer_release(trainer);
    return err->code;
}

static emo_status loss(emo_model *model, const emo_dataset *data, const char *name, emo_error *err) {
    emo_eval_result sums = {0, 0, 0, 0.0, 0, 0};
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EMO_TRY(emo_eval_documents(model, data, NULL, &sums, NULL, NULL, err));
    EMO_TRY(emo_model_get_info(model, &info, err));
    printf("%-22s %7d parameters, %.4f nats a token\n", name, (int)info.parameters,
           sums.loss_sum / (double)sums.tokens);
done:
    return err->code;
}

static emo_status run(emo_runtime *rt, char **argv, emo_error *err) {
    emo_model *large = NULL, *small = NULL, *merged = NULL;
    emo_mask *mask = NULL;
    emo_dataset *data = NULL;
    const char *const paths[] = {argv[3]};
    char path[4096];

    EMO_TRY(emo_model_load_path(rt, argv[1], NULL, &large, err));
    EMO_TRY(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(large), NULL, &data, err));
    EMO_TRY(emo_mask_load(rt, argv[2], &mask, err));
    EMO_TRY(emo_model_prune(large, mask, NULL, &small, err)); /* it remembers the ids its experts had */
    EMO_TRY(loss(large, data, "the large model", err));
    EMO_TRY(loss(small, data, "its subset", err));
    EMO_TRY(tune(small, data, err));
    EMO_TRY(loss(small, data, "the subset, tuned", err));
    EMO_TRY(emo_model_merge(large, small, NULL, &merged, err));
    EMO_TRY(loss(merged, data, "the large one, merged", err));

    printf("expert 0 of the subset's layer 0 was %d\n", (int)emo_model_original_expert(small, 0, 0));
    snprintf(path, sizeof path, "%s/small", argv[4]);
    EMO_TRY(emo_model_save(small, path, NULL, err));
    snprintf(path, sizeof path, "%s/merged", argv[4]);
    EMO_TRY(emo_model_save(merged, path, NULL, err));
done:
    emo_dataset_release(data);
    emo_mask_release(mask);
    emo_model_release(merged);
    emo_model_release(small);
    emo_model_release(large);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL_FOLDER MASK_FILE DOCUMENTS OUT_FOLDER\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argv, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
