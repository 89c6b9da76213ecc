/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Router statistics of several files of documents, added up, kept in a file, and a mask made from them later, without
 * running the model again:
 *     collect_stats MODEL_FOLDER STATS_JSON KEEP MASK_JSON DOCUMENTS...
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

static emo_status collect(emo_model *model, emo_runtime *rt, const char *path, emo_stats **sum, emo_error *err) {
    emo_dataset *data = NULL;
    emo_stats *one = NULL, *both = NULL;
    const char *const paths[] = {path};

    EMO_TRY(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), NULL, &data, err));
    EMO_TRY(emo_stats_collect(model, data, NULL, &one, err));
    printf("%s: %d tokens\n", path, (int)emo_stats_tokens(one));
    if (*sum != NULL) {
        EMO_TRY(emo_stats_merge(*sum, one, &both, err));
        emo_stats_release(*sum);
        *sum = both;
    } else {
        *sum = one;
        one = NULL;
    }
done:
    emo_stats_release(one);
    emo_dataset_release(data);
    return err->code;
}

/* The busiest expert of every layer. */
static emo_status print_busiest(const emo_stats *stats, emo_error *err) {
    for (int32_t layer = 0; layer < emo_stats_layers(stats); layer++) {
        size_t count = 0;
        double *probs = NULL;
        EMO_TRY(emo_stats_probs(stats, layer, NULL, 0, &count, err)); /* capacity 0 asks for the size */
        probs = malloc((count + 1) * sizeof *probs);
        if (probs == NULL)
            return err->code = EMO_E_OUT_OF_MEMORY;
        const emo_status status = emo_stats_probs(stats, layer, probs, count, &count, err);
        size_t best = 0;
        for (size_t e = 1; status == EMO_OK && e < count; e++)
            best = probs[e] > probs[best] ? e : best;
        if (status == EMO_OK && count > 0)
            printf("layer %d: of %zu experts, %zu gets %.1f %%\n", (int)layer, count, best, 100.0 * probs[best]);
        free(probs);
        EMO_TRY(status);
    }
done:
    return err->code;
}

static emo_status run(emo_runtime *rt, int argc, char **argv, emo_error *err) {
    emo_model *model = NULL;
    emo_stats *stats = NULL, *again = NULL;
    emo_mask *mask = NULL;
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;

    EMO_TRY(emo_model_load_path(rt, argv[1], NULL, &model, err));
    for (int i = 5; i < argc; i++)
        EMO_TRY(collect(model, rt, argv[i], &stats, err));
    EMO_TRY(emo_stats_save(stats, argv[2], err));

    EMO_TRY(emo_stats_load(rt, argv[2], &again, err)); /* another day, perhaps */
    EMO_TRY(print_busiest(again, err));
    select.keep = (int32_t)strtol(argv[3], NULL, 10);
    select.method = EMO_SELECT_USAGE;
    EMO_TRY(emo_select_from_stats(model, again, &select, &mask, err));
    EMO_TRY(emo_mask_save(mask, argv[4], err));
    printf("%s keeps %d experts of layer 0\n", argv[4], (int)emo_mask_count(mask, 0));
done:
    emo_mask_release(mask);
    emo_stats_release(again);
    emo_stats_release(stats);
    emo_model_release(model);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: %s MODEL_FOLDER STATS_JSON KEEP MASK_JSON DOCUMENTS...\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argc, argv, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
