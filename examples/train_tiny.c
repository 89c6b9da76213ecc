/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Train a tiny model with document pools, step by step, on the bytes of labelled documents:
 *     train_tiny DOCUMENTS_JSONL OUT_FOLDER
 * A line of the documents looks like {"text": "...", "domain": "kitchen"}.
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

/* Two layers of sixteen routed experts and a shared one; the vocabulary is that of the byte tokenizer. */
static const char config[] = "{\"hidden_size\": 64, \"intermediate_size\": 64, \"num_hidden_layers\": 2,"
                             " \"num_attention_heads\": 4, \"num_experts\": 17, \"num_shared_experts\": 1,"
                             " \"num_experts_per_tok\": 4, \"max_position_embeddings\": 512,"
                             " \"vocab_size\": 257, \"eos_token_id\": 256, \"pad_token_id\": 256}";

static emo_status train(emo_runtime *rt, emo_model *model, const emo_dataset *data, emo_error *err) {
    emo_pool_policy *pool = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;

    EMO_TRY(emo_pool_policy_create_uniform(rt, 4, 16, &pool, err)); /* a random size per document and layer */
    options.pool = pool;                                            /* NULL: a standard mixture of experts */
    options.max_steps = 60;
    options.batch_rows = 8;
    options.seq_len = 64;
    EMO_TRY(emo_trainer_create(model, data, &options, &trainer, err));
    while (emo_trainer_at(trainer) < options.max_steps) { /* or emo_trainer_run() with options.on_step */
        emo_step_metrics metrics = {.struct_size = sizeof metrics};
        EMO_TRY(emo_trainer_step(trainer, &metrics, err));
        if (metrics.step % 20 == 0)
            printf("step %d: loss %.3f nats a byte, %.0f bytes a second\n", (int)metrics.step, metrics.loss,
                   metrics.tokens_per_second);
    }
done:
    emo_trainer_release(trainer);
    emo_pool_policy_release(pool);
    return err->code;
}

static emo_status run(emo_runtime *rt, char **argv, emo_error *err) {
    emo_tokenizer *bytes = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    const char *const paths[] = {argv[1]};

    EMO_TRY(emo_tokenizer_create_bytes(rt, &bytes, err));
    EMO_TRY(emo_dataset_open(rt, paths, 1, bytes, NULL, &data, err));
    printf("%d documents of %d domains, %d bytes\n", (int)emo_dataset_count(data), (int)emo_dataset_domains(data),
           (int)emo_dataset_bytes(data));
    EMO_TRY(emo_model_create_json(rt, config, sizeof config - 1, NULL, &model, err));
    EMO_TRY(emo_model_set_tokenizer(model, bytes, err)); /* so that saving writes it */
    EMO_TRY(train(rt, model, data, err));
    EMO_TRY(emo_model_save(model, argv[2], NULL, err)); /* a folder that transformers and libemo load */
done:
    emo_dataset_release(data);
    emo_model_release(model);
    emo_tokenizer_release(bytes);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s DOCUMENTS_JSONL OUT_FOLDER\n", argv[0]);
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
