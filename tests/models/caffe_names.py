"""Layer names of ResidualAttentionNetwork in the authors' Caffe definition."""

from ssanet_jax.models.name_mapping import NameMapping

NAMING = NameMapping(
    [
        # BatchNorms are named after the layer that they normalize.
        ('^bn1/', 'conv1/bn/'),
        ('^layer1_0/norm1/', 'pool1_3x3_s2/bn/'),
        (r'^layer([234])_0/norm1/', lambda m: f'attention{int(m[1]) - 1}_0/bn/'),
        (r'^layer4_([12])/norm1/', r'post_res_4_\1/bn/'),
        ('^norm/', 'post_res_4_3/bn/'),
        (r'^attention(\d)_0/trunk_res1/norm1/', r'pre_res_\1/bn/'),
        (r'/trunk_res([23])/norm1/', lambda m: f'/trunk/res{int(m[1]) - 1}/bn/'),
        (r'/mask_down(\d)/norm1/', r'/mask/down_sample/pool\1_3x3_s2/bn/'),
        (r'/mask_(?:down(\d)_2|skip(\d))/norm1/', r'/mask/down_sample/res\1\2_1/bn/'),
        (r'/mask_up(\d)/norm1/', r'/mask/up_sample\1/bn/'),
        ('/mask_norm1/', '/mask/up_sample/interp_1/bn/'),
        ('/mask_norm2/', '/mask/linear_1/bn/'),
        ('/last/norm1/', '/fusion/bn/'),
        # Units.
        ('/norm2/', '/conv1/bn/'),
        ('/norm3/', '/conv2/bn/'),
        (r'/conv([13])/', r'/branch1/conv\1_1x1/'),
        ('/conv2/', '/branch1/conv2_3x3/'),
        ('/downsample/', '/branch2/conv1_1x1/'),
        (r'/trunk_res(\d)/', r'/trunk/res\1/'),
        (r'/mask_down(\d)/', r'/mask/down_sample/res\1_1/'),
        (r'/mask_down(\d)_2/', r'/mask/down_sample/res\1_2/'),
        (r'/mask_skip(\d)/', r'/mask/skip/res\1/'),
        (r'/mask_up(\d)/', r'/mask/up_sample/res\1_1/'),
        (r'/mask_linear(\d)/', r'/mask/linear_\1/'),
        ('/last/', '/'),
        (r'^attention(\d)_0/', lambda m: f'Attention{" ABC"[int(m[1])]}_1/'),
        (r'^layer4_(\d)/', lambda m: f'post_res_4_{int(m[1]) + 1}/'),
        (r'^layer(\d)_0/', r'pre_res_\1/'),
        ('^fc/', 'classifier/'),
    ]
)
