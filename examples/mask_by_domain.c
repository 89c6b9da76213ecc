/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mask of experts for each domain of labelled documents, what it costs there, and how much the masks share:
 *     mask_by_domain MODEL_FOLDER DOCUMENTS KEEP OUT_FOLDER
 * Writes OUT_FOLDER/DOMAIN.mask.json; the folder must be there.
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

enum { MOST_DOMAINS = 64 };

static int32_t kept(const emo_mask *mask) {
    int32_t n = 0;
    for (int32_t layer = 0; layer < emo_mask_layers(mask); layer++)
        n += emo_mask_count(mask, layer);
    return n;
}

static emo_status bits_per_byte(emo_model *model, const emo_dataset *documents, const emo_mask *mask, double *out,
                                emo_error *err) {
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result sums = {0, 0, 0, 0.0, 0, 0};
    options.mask = mask; /* NULL: all experts */
    EMO_TRY(emo_eval_documents(model, documents, &options, &sums, NULL, NULL, err));
    *out = sums.loss_sum / 0.69314718055994531 / (double)sums.bytes;
done:
    return err->code;
}

static emo_status one_domain(emo_model *model, const emo_dataset *all, const char *domain, int32_t keep,
                             const char *folder, emo_mask **mask, emo_error *err) {
    emo_dataset *documents = NULL, *one = NULL;
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    char path[4096];
    double full = 0.0, masked = 0.0;

    EMO_TRY(emo_dataset_filter(all, domain, 0, 0, &documents, err));
    EMO_TRY(emo_dataset_filter(documents, NULL, 1, 7, &one, err)); /* one document is enough to choose by */
    select.keep = keep;
    select.method = EMO_SELECT_LAYERWISE;
    EMO_TRY(emo_select(model, one, &select, mask, err));
    EMO_TRY(bits_per_byte(model, documents, NULL, &full, err));
    EMO_TRY(bits_per_byte(model, documents, *mask, &masked, err));
    printf("%-12s %5.3f bits a byte with all experts, %5.3f with %d a layer\n", domain, full, masked, (int)keep);
    snprintf(path, sizeof path, "%s/%s.mask.json", folder, domain);
    EMO_TRY(emo_mask_save(*mask, path, err));
done:
    emo_dataset_release(one);
    emo_dataset_release(documents);
    return err->code;
}

static emo_status run(emo_runtime *rt, char **argv, emo_error *err) {
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_mask *masks[MOST_DOMAINS] = {NULL}, *both = NULL, *either = NULL;
    const char *const paths[] = {argv[2]};
    const int32_t keep = (int32_t)strtol(argv[3], NULL, 10);
    int32_t n = 0;

    EMO_TRY(emo_model_load_path(rt, argv[1], NULL, &model, err));
    EMO_TRY(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), NULL, &data, err));
    n = emo_dataset_domains(data) < MOST_DOMAINS ? emo_dataset_domains(data) : MOST_DOMAINS;
    for (int32_t d = 0; d < n; d++)
        EMO_TRY(one_domain(model, data, emo_dataset_domain_name(data, d), keep, argv[4], &masks[d], err));
    for (int32_t d = 1; d < n; d++) { /* masks are sets, layer by layer */
        EMO_TRY(emo_mask_intersect(masks[0], masks[d], &both, err));
        EMO_TRY(emo_mask_union(masks[0], masks[d], &either, err));
        printf("%s and %s share %d of %d experts\n", emo_dataset_domain_name(data, 0), emo_dataset_domain_name(data, d),
               (int)kept(both), (int)kept(either));
        emo_mask_release(both);
        emo_mask_release(either);
        both = either = NULL;
    }
done:
    emo_mask_release(both);
    emo_mask_release(either);
    for (int32_t d = 0; d < n; d++)
        emo_mask_release(masks[d]);
    emo_dataset_release(data);
    emo_model_release(model);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL_FOLDER DOCUMENTS KEEP OUT_FOLDER\n", argv[0]);
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
