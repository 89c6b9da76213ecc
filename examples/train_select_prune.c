/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Train with document pools, pick experts from one document, write the small model:
 *     train_select_prune TOKENIZER_JSON DOCUMENTS NOTE_TXT OUT_FOLDER
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

/* Sixteen routed experts and a shared one in each of two layers; the tokenizer's numbers are filled in below. */
static const char shape[] = "{\"hidden_size\": 64, \"intermediate_size\": 64, \"num_hidden_layers\": 2, "
                            "\"num_attention_heads\": 4, \"num_experts\": 17, \"num_shared_experts\": 1, "
                            "\"num_experts_per_tok\": 4, \"max_position_embeddings\": 512, "
                            "\"vocab_size\": %d, \"eos_token_id\": %d, \"pad_token_id\": %d}";

static int32_t print_step(void *ctx, const emo_step_metrics *metrics) {
    if (metrics->step % 10 == 0 || metrics->step == metrics->steps)
        printf("step %d of %d: loss %.3f\n", (int)metrics->step, (int)metrics->steps, metrics->loss);
    return 0; /* anything else stops the run */
}

static emo_status train(emo_runtime *rt, emo_model *model, const emo_dataset *data, emo_error *err) {
    emo_pool_policy *pool = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;

    EMO_TRY(emo_pool_policy_create_uniform(rt, 4, 16, &pool, err)); /* a random size per document and layer */
    options.pool = pool;
    options.max_steps = 100;
    options.batch_rows = 8;
    options.seq_len = 128;
    options.on_step = print_step;
    EMO_TRY(emo_trainer_create(model, data, &options, &trainer, err));
    EMO_TRY(emo_trainer_run(trainer, err)); /* or emo_trainer_step(), when you own the loop */
done:
    emo_trainer_release(trainer);
    emo_pool_policy_release(pool);
    return err->code;
}

static emo_status select_and_prune(emo_model *model, const emo_dataset *note, const char *out, emo_error *err) {
    emo_mask *mask = NULL;
    emo_model *small = NULL;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;

    options.keep = 5; /* of 17, the shared one included */
    options.method = EMO_SELECT_LAYERWISE;
    EMO_TRY(emo_select(model, note, &options, &mask, err));
    EMO_TRY(emo_model_prune(model, mask, NULL, &small, err));
    EMO_TRY(emo_model_save(small, out, NULL, err)); /* a folder that transformers and libemo load */
    printf("%s: layer 0 keeps %d experts\n", out, (int)emo_mask_count(mask, 0));
done:
    emo_model_release(small);
    emo_mask_release(mask);
    return err->code;
}

static emo_status run(emo_runtime *rt, char **argv, emo_error *err) {
    emo_tokenizer *tokenizer = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL, *note = NULL;
    const char *const corpus[] = {argv[2]}, *const one[] = {argv[3]};
    char config[512];

    EMO_TRY(emo_tokenizer_load(rt, argv[1], &tokenizer, err));
    const int eos = (int)emo_tokenizer_eos(tokenizer);
    const int length = snprintf(config, sizeof(config), shape, (int)emo_tokenizer_vocab_size(tokenizer), eos, eos);
    EMO_TRY(emo_model_create_json(rt, config, (size_t)length, NULL, &model, err));
    EMO_TRY(emo_model_set_tokenizer(model, tokenizer, err)); /* so that saving writes it */
    EMO_TRY(emo_dataset_open(rt, corpus, 1, tokenizer, NULL, &data, err));
    EMO_TRY(emo_dataset_open(rt, one, 1, tokenizer, NULL, &note, err));
    EMO_TRY(train(rt, model, data, err));
    EMO_TRY(select_and_prune(model, note, argv[4], err));
done:
    emo_dataset_release(note);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_tokenizer_release(tokenizer);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s TOKENIZER_JSON DOCUMENTS NOTE_TXT OUT_FOLDER\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argv, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s\n", err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
