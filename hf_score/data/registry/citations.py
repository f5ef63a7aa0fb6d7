"""What to cite for each benchmark, as BibTeX."""

SAGAWA = """@inproceedings{sagawa2020distributionally,
  title = {Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for
           Worst-Case Generalization},
  author = {Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy},
  booktitle = {International Conference on Learning Representations},
  year = {2020}
}
@techreport{wah2011caltech,
  title = {The {Caltech-UCSD Birds-200-2011} Dataset},
  author = {Wah, Catherine and Branson, Steve and Welinder, Peter and Perona, Pietro and Belongie, Serge},
  institution = {California Institute of Technology},
  number = {CNS-TR-2011-001},
  year = {2011}
}
@article{zhou2018places,
  title = {Places: A 10 Million Image Database for Scene Recognition},
  author = {Zhou, Bolei and Lapedriza, Agata and Khosla, Aditya and Oliva, Aude and Torralba, Antonio},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {40},
  number = {6},
  pages = {1452--1464},
  year = {2018}
}"""
PETRYK = """@inproceedings{petryk2022guiding,
  title = {On Guiding Visual Attention with Language Specification},
  author = {Petryk, Suzanne and Dunlap, Lisa and Nasseri, Keyan and Gonzalez, Joseph and Darrell, Trevor and
            Rohrbach, Anna},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}"""
LIU = """@inproceedings{liu2015deep,
  title = {Deep Learning Face Attributes in the Wild},
  author = {Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  booktitle = {IEEE International Conference on Computer Vision},
  year = {2015}
}"""
ISIC = """@inproceedings{codella2018skin,
  title = {Skin Lesion Analysis toward Melanoma Detection: A Challenge at the 2017 International Symposium on
           Biomedical Imaging ({ISBI}), Hosted by the International Skin Imaging Collaboration ({ISIC})},
  author = {Codella, Noel C. F. and others},
  booktitle = {IEEE International Symposium on Biomedical Imaging},
  year = {2018}
}
@inproceedings{rieger2020interpretations,
  title = {Interpretations are Useful: Penalizing Explanations to Align Neural Networks with Prior Knowledge},
  author = {Rieger, Laura and Singh, Chandan and Murdoch, W. James and Yu, Bin},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}"""
CHEN = """@article{chen2019fully,
  title = {Fully Automatic Knee Osteoarthritis Severity Grading Using Deep Neural Networks with a Novel Ordinal Loss},
  author = {Chen, Pingjun and Gao, Linlin and Shi, Xiaoshuang and Allen, Kyle and Yang, Lin},
  journal = {Computerized Medical Imaging and Graphics},
  volume = {75},
  pages = {84--92},
  year = {2019}
}
@misc{chen2018knee,
  title = {Knee Osteoarthritis Severity Grading Dataset},
  author = {Chen, Pingjun},
  howpublished = {Mendeley Data},
  doi = {10.17632/56rmx5bjcr.1},
  year = {2018}
}"""
XIAO = """@misc{xiao2017fashion,
  title = {{Fashion-MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  note = {arXiv:1708.07747},
  year = {2017}
}"""
DEITSCH = """@article{deitsch2021segmentation,
  title = {Segmentation of Photovoltaic Module Cells in Uncalibrated Electroluminescence Images},
  author = {Deitsch, Sergiu and Buerhop-Lutz, Claudia and Sovetkin, Evgenii and Steland, Ansgar and Maier, Andreas and
            Gallwitz, Florian and Riess, Christian},
  journal = {Machine Vision and Applications},
  volume = {32},
  number = {4},
  year = {2021}
}"""
LAPUSCHKIN = """@article{lapuschkin2019unmasking,
  title = {Unmasking {Clever Hans} Predictors and Assessing What Machines Really Learn},
  author = {Lapuschkin, Sebastian and W{\\"a}ldchen, Stephan and Binder, Alexander and Montavon, Gr{\\'e}goire and
            Samek, Wojciech and M{\\"u}ller, Klaus-Robert},
  journal = {Nature Communications},
  volume = {10},
  year = {2019}
}"""
LI = """@inproceedings{li2023whac,
  title = {A Whac-A-Mole Dilemma: Shortcuts Come in Multiples Where Mitigating One Amplifies Others},
  author = {Li, Zhiheng and Evtimov, Ivan and Gordo, Albert and Hazirbas, Caner and Hassner, Tal and
            Canton Ferrer, Cristian and Xu, Chenliang and Ibrahim, Mark},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}"""
LIANG = """@inproceedings{liang2022metashift,
  title = {{MetaShift}: A Dataset of Datasets for Evaluating Contextual Distribution Shifts and Training Conflicts},
  author = {Liang, Weixin and Zou, James},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}"""
KIM = """@inproceedings{kim2021biaswap,
  title = {{BiaSwap}: Removing Dataset Bias with Bias-Tailored Swapping Augmentation},
  author = {Kim, Eungyeup and Lee, Jihyeon and Choo, Jaegul},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2021}
}"""
LYNCH = """@misc{lynch2023spawrious,
  title = {Spawrious: A Benchmark for Fine Control of Spurious Correlation Biases},
  author = {Lynch, Aengus and Dovonon, Gb{\\`e}tondji J-S and Kaddour, Jean and Silva, Ricardo},
  note = {arXiv:2303.05470},
  year = {2023}
}"""
ZHANG = """@inproceedings{zhang2023nico,
  title = {{NICO++}: Towards Better Benchmarking for Domain Generalization},
  author = {Zhang, Xingxuan and He, Yue and Xu, Renzhe and Yu, Han and Shen, Zheyan and Cui, Peng},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}"""
IRVIN = """@inproceedings{irvin2019chexpert,
  title = {{CheXpert}: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  author = {Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and others},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2019}
}"""
